#pragma once

#include <algorithm>
#include <cstddef>

#include "moe_mamba/cuda/block/scan_backward.cuh"
#include "moe_mamba/cuda/selective_scan.cuh"

/// The way back through the selective scan on the GPU. See reference::selective_scan_backward for the formulas.
///
/// A block takes 64 channels (32 in double, or of more than 16 states), and goes from the last piece of
/// scan_checkpoint_interval steps to the first. In a piece each thread, which has up to 4 states of one channel, runs
/// forward from the checkpoint and notes its states in front of each tile of 8 steps; then, from the last tile to the
/// first, forward through the tile with states and decays in registers, and back. Sums over states go through shared
/// memory, as in the forward pass.
///
/// The gradients of B and C are sums over channels: first over the lanes of a warp, by exchanges between them, then over
/// the warps of a block, then over blocks, in a launch of its own. Those of parameters are summed over time by a thread,
/// then over chunks and sequences by that launch. There are no atomic additions, and the order is always the same.
///
/// An H100 takes 1.10 ms for 8 sequences of 2048 steps of 2048 channels of 16 states in float, 690 instructions an
/// element: 190 forward in the tile, 190 back, 120 for the sums over lanes, 75 forward in the piece, the rest for what
/// is done once a step. Blocks of 32 channels and asking for pieces ahead of time did not help.
namespace moe_mamba::cuda {

namespace detail {

template <class C, class S, int States>
__global__ void __launch_bounds__(ScanBackwardTuning<C, States>::threads, ScanBackwardTuning<C, States>::blocks)
    scan_backward_kernel(const __grid_constant__ SelectiveScanBackward<C, S, States> scan,
                         const __grid_constant__ ScanCarry<C> carry, const __grid_constant__ ScanPartialSums<C> partial,
                         int first_state) {
  using Thread = ScanBackwardThread<C, S, States>;
  extern __shared__ __align__(16) unsigned char shared[];
  Thread(scan, carry, partial, first_state, *reinterpret_cast<typename Thread::Storage*>(shared)).run();
}

/// What a chunk makes of a zero gradient behind it, and the sum of its Δ: Σ over a reverse scan of C dp.
template <class C, class S, int States>
__global__ void __launch_bounds__(ScanForwardTuning<C, States>::threads)
    scan_backward_summary_kernel(const __grid_constant__ SelectiveScanBackward<C, S, States> scan,
                                 const __grid_constant__ ScanCarry<C> carry, int first_state) {
  using Tuning = ScanForwardTuning<C, States>;
  __shared__ ScanStorage<C, Tuning> storage;
  const Index channels = scan.u.columns;
  const ScanPlace place(channels, scan.shape.length, carry.chunking);
  const Index part = place.sequence * carry.chunking.count + place.chunk;
  const bool inside = place.channel < channels;
  const int own_state = first_state + place.warp * Tuning::states;
  const C bias = inside ? static_cast<C>(scan.delta_bias[place.channel]) : C(0);
  C rate[Tuning::states], carried[Tuning::states] = {}, delta_sum = C(0);
  for (int r = 0; r < Tuning::states; ++r) {
    const bool owned = inside && own_state + r < States;
    rate[r] = owned ? decay_rate<C>(scan.a_log[place.channel * States + own_state + r]) : C(0);
  }
  const Index tiles = (place.end - place.begin + Tuning::steps - 1) / Tuning::steps;
  for (Index tile = tiles - 1; tile >= 0; --tile) {
    const Index first = place.begin + tile * Tuning::steps, row = place.sequence * scan.shape.length + first;
    C delta[Tuning::rows], dy[Tuning::rows], z[Tuning::rows];  // all on their way before the first is needed
#pragma unroll
    for (int i = 0; i < Tuning::rows; ++i) {
      const int t = place.warp + i * Tuning::warps;
      const bool here = inside && first + t < place.end;
      const auto at = [&](const MatrixView<const C>& rows) {
        return here ? rows.data[(row + t) * rows.stride + place.channel] : C(0);
      };
      delta[i] = at(scan.delta), dy[i] = at(scan.dy), z[i] = at(scan.z);
    }
#pragma unroll
    for (int i = 0; i < Tuning::rows; ++i) {
      const int t = place.warp + i * Tuning::warps;
      const C step = softplus_of(delta[i] + bias);
      storage.inputs[t][place.lane] = {first + t < place.end ? step : C(0), dy[i] * silu_of(z[i])};
    }
    for (int i = static_cast<int>(threadIdx.x); i < Tuning::steps * Tuning::pass; i += Tuning::threads) {
      const int t = i / Tuning::pass, n = i % Tuning::pass;
      const bool here = first + t < place.end && first_state + n < States;
      storage.coefficients[t][1][n / Tuning::states].of[n % Tuning::states] =
          here ? scan.c.data[(row + t) * scan.c.stride + first_state + n] : C(0);
    }
    __syncthreads();
#pragma unroll
    for (int t = Tuning::steps - 1; t >= 0; --t) {
      const C delta = storage.inputs[t][place.lane].delta, dp = storage.inputs[t][place.lane].u;
      const auto c = storage.coefficients[t][1][place.warp];
      delta_sum += delta;
#pragma unroll
      for (int r = 0; r < Tuning::states; ++r) {
        carried[r] = power_of_two(delta * rate[r]) * fma(dp, c.of[r], carried[r]);
      }
    }
    __syncthreads();
  }
  for (int r = 0; r < Tuning::states; ++r) {
    if (!inside || own_state + r >= States) continue;
    carry.states[(part * States + own_state + r) * channels + place.channel] = carried[r];
  }
  if (place.warp == 0 && inside) carry.delta_sums[part * channels + place.channel] = delta_sum;
}

/// db and dc of all steps, over groups of channels. A thread takes an element of both.
template <class C>
__global__ void __launch_bounds__(256)
    scan_coefficient_gradients_kernel(ScanPartialSums<C> partial, Index groups, Index rows, Index states,
                                      MatrixView<C> db, MatrixView<C> dc) {
  const Index index = Index{blockIdx.x} * blockDim.x + threadIdx.x;
  if (index >= rows * states) return;
  C db_sum = C(0), dc_sum = C(0);
  for (Index group = 0; group < groups; ++group) {
    db_sum += partial.db[group * rows * states + index];
    dc_sum += partial.dc[group * rows * states + index];
  }
  const Index row = index / states, n = index - row * states;
  db.data[row * db.stride + n] = db_sum;
  dc.data[row * dc.stride + n] = dc_sum;
}

/// to[i] += Σ_part parts[part][i] for the gradients of a_log, d and the bias.
template <class C>
__global__ void __launch_bounds__(256)
    scan_parameter_gradients_kernel(ScanPartialSums<C> partial, Index parts, Index channels, Index states, C* da_log,
                                    C* dd, C* dbias) {
  Index i = Index{blockIdx.x} * blockDim.x + threadIdx.x;
  Index size = channels * states;
  const C* from = partial.da_log;
  C* to = da_log;
  if (i >= size) {
    i -= size;
    size = channels;
    const bool bias = i >= channels;
    from = bias ? partial.dbias : partial.dd;
    to = bias ? dbias : dd;
    if (bias) i -= channels;
    if (i >= channels) return;
  }
  C sum = C(0);
  for (Index part = 0; part < parts; ++part) sum += from[part * size + i];
  to[i] += sum;
}

/// What selective_scan takes of its scratch.
template <class C>
std::size_t scan_forward_scratch(const Device& device, Shape shape, Index channels, Index states) {
  const ScanChunking chunking = scan_forward_chunking(device, shape, channels);
  Arena counting;
  (void)ScanCarry<C>(counting, chunking, shape.batch, channels, states);
  return counting.used();
}

template <class C>
ScanChunking scan_backward_chunking(const Device& device, Shape shape, Index channels, Index states) {
  const Index groups = ceiling_of(channels, Index{scan_backward_width(sizeof(C), states)});
  return scan_chunking(device.processors(), 2, shape.batch * groups, shape.length);
}

template <class C>
std::size_t scan_backward_scratch(const Device& device, Shape shape, Index channels, Index states) {
  const ScanChunking chunking = scan_backward_chunking<C>(device, shape, channels, states);
  Arena counting;
  (void)ScanPartialSums<C>(counting, shape, chunking.count, channels, states);
  (void)ScanCarry<C>(counting, chunking, shape.batch, channels, states);
  return counting.used();
}

}  // namespace detail

/// Bytes of device memory that selective_scan and selective_scan_backward need at most: about E / 32 values of type C an
/// element of B, and one an element of A_log, sequence and chunk.
template <ComputeScalar C>
std::size_t selective_scan_scratch(const Device& device, Shape shape, Index channels, Index states) {
  return std::max(detail::scan_forward_scratch<C>(device, shape, channels, states),
                  detail::scan_backward_scratch<C>(device, shape, channels, states));
}

/// See ops/selective_scan.hpp. Pointers are to device memory. Nothing is allocated and nothing waits; outputs must not
/// overlap inputs or one another. A length of 0 leaves everything as it is.
///
/// A NaN in an input of a step comes out in the gradients of what that step and the ones before it read. The same call
/// gives the same bits each time. Throws Error where a kernel cannot be launched.
template <class C, class S, int States>
void selective_scan_backward(Device& device, const SelectiveScanBackward<C, S, States>& scan) {
  using Tuning = detail::ScanBackwardTuning<C, States>;
  using Summary = detail::ScanForwardTuning<C, States>;
  const Index channels = scan.u.columns, batch = scan.shape.batch, tokens = scan.shape.tokens();
  if (tokens == 0 || channels == 0) return;
  const Index groups = detail::ceiling_of(channels, Index{Tuning::width});
  const detail::ScanChunking chunking = detail::scan_backward_chunking<C>(device, scan.shape, channels, States);
  Arena arena = scan.scratch;
  const detail::ScanPartialSums<C> partial(arena, scan.shape, chunking.count, channels, States);
  const detail::ScanCarry<C> carry(arena, chunking, batch, channels, States);
  if (chunking.count > 1) {
    const auto grid = static_cast<unsigned>(detail::scan_blocks(scan.shape, channels) * chunking.count);
    for (int pass = 0; pass < Summary::passes; ++pass) {
      detail::scan_backward_summary_kernel<C, S, States>
          <<<grid, Summary::threads, 0, device.stream()>>>(scan, carry, pass * Summary::pass);
    }
    const auto carries = static_cast<unsigned>(detail::ceiling_of(batch * States * channels, Index{128}));
    detail::scan_carry_kernel<C, S, States, true>
        <<<carries, 128, 0, device.stream()>>>(carry, scan.a_log, scan.dstate, batch, channels);
  }
  const auto kernel = detail::scan_backward_kernel<C, S, States>;
  constexpr int shared = sizeof(typename detail::ScanBackwardThread<C, S, States>::Storage);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared), "cudaFuncSetAttribute");
  const auto grid = static_cast<unsigned>(batch * groups * chunking.count);
  for (int pass = 0; pass < Tuning::passes; ++pass) {
    kernel<<<grid, Tuning::threads, shared, device.stream()>>>(scan, carry, partial, pass * Tuning::pass);
  }
  const auto elements = static_cast<unsigned>(detail::ceiling_of(tokens * States, Index{256}));
  detail::scan_coefficient_gradients_kernel<C>
      <<<elements, 256, 0, device.stream()>>>(partial, groups, tokens, States, scan.db, scan.dc);
  const auto parameters = static_cast<unsigned>(detail::ceiling_of(channels * (States + 2), Index{256}));
  detail::scan_parameter_gradients_kernel<C><<<parameters, 256, 0, device.stream()>>>(
      partial, batch * chunking.count, channels, States, scan.da_log, scan.dd, scan.ddelta_bias);
  check_launch("selective_scan_backward");
}

}  // namespace moe_mamba::cuda
