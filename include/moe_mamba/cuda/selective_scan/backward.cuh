#pragma once

#include <algorithm>
#include <cstddef>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/cuda/common/mathematics.cuh"
#include "moe_mamba/cuda/common/rounding.cuh"
#include "moe_mamba/cuda/common/row_cursor.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/cuda/selective_scan/backward_thread.cuh"
#include "moe_mamba/cuda/selective_scan/forward.cuh"
#include "moe_mamba/cuda/selective_scan/tile.cuh"
#include "moe_mamba/cuda/selective_scan/tuning.cuh"

/// The way back through the selective scan on the GPU. See reference::selective_scan_backward for the formulas.
///
/// A block takes 64 channels (32 in double, or of more than 16 states), and goes from the last piece of
/// scan_checkpoint_interval steps to the first. In a piece each thread, which has up to 4 states of one channel or two, runs
/// forward from the checkpoint and notes its states in front of every 4 steps; then, from the last 4 to the first, forward
/// through them with decays and decayed states in registers, and back. Sums over states go through shared memory, as in
/// the forward pass; what is done once for each element is done for tiles of 8 steps.
///
/// The gradients of B and C are sums over channels: first those of a thread, then over the lanes of a warp, by exchanges
/// between them, then over blocks, in a launch of its own. Those of parameters are summed over time by a thread, then over
/// chunks and sequences by that launch. There are no atomic additions, and the order is always the same.
///
/// An H100 takes 0.91 ms for 8 sequences of 2048 steps of 2048 channels of 16 states in float, 476 instructions an
/// element: 292 forward and back, with the sums over lanes, 65 forward in the piece, 80 for what is done once, 39 for
/// what is done once a piece; 58 % of the cycles issue one. Tiles of 8 steps in registers take longer (1.10 ms: no
/// registers are left to read ahead), so do twice as many warps of one channel a thread (1.22) and three blocks a
/// multiprocessor (1.10).
namespace moe_mamba::cuda {

namespace detail {

template <class C, class S, int States>
__global__ void __launch_bounds__(ScanBackwardTuning<compute_t<C>, States>::threads,
                                  ScanBackwardTuning<compute_t<C>, States>::blocks)
    scan_backward_kernel(const __grid_constant__ SelectiveScanBackward<C, S, States> scan,
                         const __grid_constant__ ScanCarry<compute_t<C>> carry,
                         const __grid_constant__ ScanPartialSums<compute_t<C>> partial,
                         const __grid_constant__ ScanPassSums<C, 3> sums, int first_state, bool loads_together) {
  using Thread = ScanBackwardThread<C, S, States>;
  extern __shared__ __align__(16) unsigned char shared[];
  Thread(scan, carry, partial, sums, first_state, loads_together, *reinterpret_cast<typename Thread::Storage*>(shared))
      .run();
}

/// What a chunk makes of a zero gradient behind it, and the sum of its Δ: Σ over a reverse scan of C dp.
template <class C, class S, int States>
__global__ void __launch_bounds__(ScanForwardTuning<compute_t<C>, States, false>::threads)
    scan_backward_summary_kernel(const __grid_constant__ SelectiveScanBackward<C, S, States> scan,
                                 const __grid_constant__ ScanCarry<compute_t<C>> carry, int first_state,
                                 bool loads_together) {
  using T = compute_t<C>;
  using Tuning = ScanForwardTuning<T, States, false>;
  using Storage = ScanStorage<T, Tuning>;
  using Elements = typename Storage::Elements;
  using Loaded = Packed<C, Tuning::together>;
  using Own = ScanElements<Tuning>;
  constexpr int channels = Tuning::channels, states = Tuning::states;
  __shared__ typename Storage::Tile storage;
  const Index width = scan.u.columns;
  const ScanPlace place(width, scan.shape.length, carry.chunking, Tuning::width);
  if (place.chunk == 0) return;  // nothing goes on from there
  const Index part = place.sequence * carry.chunking.count + place.chunk;
  const Index first_column = place.first_channel + Own::column(),
              first_own = place.first_channel + place.lane * channels;
  const int inside = static_cast<int>(max(Index{0}, min(Index{Tuning::together}, width - first_column)));
  const int own_state = first_state + place.warp * states;
  Elements bias = {}, delta_sum = {};
  for (int j = 0; j < inside; ++j) bias.values[j] = static_cast<T>(scan.delta_bias[first_column + j]);
  T rate[channels][states], carried[channels][states] = {};
  const auto owns = [&](int k, int r) { return first_own + k < width && own_state + r < States; };
#pragma unroll
  for (int k = 0; k < channels; ++k) {
#pragma unroll
    for (int r = 0; r < states; ++r) {
      rate[k][r] = owns(k, r) ? decay_rate<T>(scan.a_log[(first_own + k) * States + own_state + r]) : T(0);
    }
  }
  const Index tiles = ceiling_divide(place.end - place.begin, Tuning::steps);
  for (Index tile = tiles - 1; tile >= 0; --tile) {
    const Index first = place.begin + tile * Tuning::steps, row = place.sequence * scan.shape.length + first;
    Loaded delta[Tuning::rows], dy[Tuning::rows], z[Tuning::rows];  // all on their way before the first is needed
#pragma unroll
    for (int i = 0; i < Tuning::rows; ++i) {
      const int t = Own::row() + i * Tuning::rows_apart, present = first + t < place.end ? inside : 0;
      const auto load = [&](Loaded& to, const MatrixView<const C>& rows) {
        const RowCursor<const C, 1> cursor(rows, row + t, first_column);
        if (loads_together) {
          cursor.template load<true>(to, present);
        } else {
          cursor.template load<false>(to, present);
        }
      };
      delta[i] = broadcast<C, Tuning::together>(no_step<T>), dy[i] = {}, z[i] = {};
      load(delta[i], scan.delta), load(dy[i], scan.dy), load(z[i], scan.z);
    }
    for (int t = Own::coefficient_row(); t < Tuning::steps; t += Tuning::coefficient_rows_apart) {
      const bool here = first + t < place.end && Own::template has_state<States>(first_state);
      const C c = here ? scan.c.data[(row + t) * scan.c.stride + first_state + Own::state()] : C{};
      storage.c[t][Own::group()].values[Own::place()] = static_cast<T>(c);
    }
#pragma unroll
    for (int i = 0; i < Tuning::rows; ++i) {
      const Elements deltas = widen(delta[i]), dys = widen(dy[i]), zs = widen(z[i]);
      Vector<T, 2 * Tuning::together> inputs;
#pragma unroll
      for (int j = 0; j < Tuning::together; ++j) {
        const T step = softplus_of<C>(deltas.values[j] + bias.values[j]);
        inputs.values[2 * j] = step;
        inputs.values[2 * j + 1] = dys.values[j] * silu_of<C>(zs.values[j]);
        delta_sum.values[j] += step;
      }
      as_vector<Vector<T, 2 * Tuning::together>>(storage.inputs[Own::row() + i * Tuning::rows_apart][Own::column()]) =
          inputs;
    }
    __syncthreads();
#pragma unroll
    for (int t = Tuning::steps - 1; t >= 0; --t) {
      const auto inputs = as_vector<Vector<ScanInput<T>, channels>>(storage.inputs[t][place.lane * channels]);
      const auto c = storage.c[t][place.warp];
#pragma unroll
      for (int k = 0; k < channels; ++k) {
        const auto [step, dp] = inputs.values[k];
#pragma unroll
        for (int r = 0; r < states; ++r) {
          carried[k][r] = power_of_two(step * rate[k][r]) * fma(dp, c.values[r], carried[k][r]);
        }
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int k = 0; k < channels; ++k) {
#pragma unroll
    for (int r = 0; r < states; ++r) {
      if (owns(k, r)) carry.states[(part * States + own_state + r) * width + first_own + k] = carried[k][r];
    }
  }
  as_vector<Elements>(storage.parts[0][Own::row()][Own::column()]) = delta_sum;
  __syncthreads();
  for (int column = Own::thread(); column < Tuning::width; column += Tuning::threads) {
    if (place.first_channel + column >= width) break;
    T sum = T(0);
    for (int i = 0; i < Tuning::rows_apart; ++i) sum += storage.parts[0][i][column];
    carry.delta_sums[part * width + place.first_channel + column] = sum;
  }
}

/// db and dc of all steps, over groups of channels. A thread takes an element of both.
template <class C>
__global__ void __launch_bounds__(256)
    scan_coefficient_gradients_kernel(ScanPartialSums<compute_t<C>> partial, Index groups, Index rows, Index states,
                                      MatrixView<C> db, MatrixView<C> dc) {
  const Index index = Index{blockIdx.x} * blockDim.x + threadIdx.x;
  if (index >= rows * states) return;
  using T = compute_t<C>;
  T db_sum = T(0), dc_sum = T(0);
  for (Index group = 0; group < groups; ++group) {
    db_sum += partial.db[group * rows * states + index];
    dc_sum += partial.dc[group * rows * states + index];
  }
  const Index row = index / states, n = index - row * states;
  db.data[row * db.stride + n] = stored_as<C>(db_sum);
  dc.data[row * dc.stride + n] = stored_as<C>(dc_sum);
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

/// Carried states of as many sequences times chunks, where there are chunks.
template <class T>
void count_scan_carry(Arena& counting, ScanParts parts, Index channels, Index states) {
  (void)ScanCarry<T>(counting, {0, std::max<Index>(1, parts.chunked)}, 1, channels, states);
}

/// What selective_scan takes of its scratch for this shape and any smaller one.
template <class C>
std::size_t scan_forward_scratch(const Device& device, Shape shape, Index channels, Index states) {
  using T = compute_t<C>;
  const Index groups = scan_blocks<C>({1, shape.length}, channels);
  Arena counting;
  count_scan_carry<T>(counting,
                      most_scan_parts(device.processors(), scan_forward_resident<C>, groups, shape.batch, shape.length),
                      channels, states);
  (void)ScanPassSums<C, 1>(counting, shape, channels, ceiling_divide(states, Index{scan_forward_pass<T>}));
  return counting.used();
}

template <class C>
ScanChunking scan_backward_chunking(const Device& device, Shape shape, Index channels, Index states) {
  const Index groups = ceiling_divide(channels, Index{scan_backward_width(sizeof(compute_t<C>), states)});
  return scan_chunking(device.processors(), 2, shape.batch * groups, shape.length);
}

template <class C>
std::size_t scan_backward_scratch(const Device& device, Shape shape, Index channels, Index states) {
  using T = compute_t<C>;
  const Index groups = ceiling_divide(channels, Index{scan_backward_width(sizeof(T), states)});
  const ScanParts parts = most_scan_parts(device.processors(), 2, groups, shape.batch, shape.length);
  Arena counting;
  (void)ScanPartialSums<T>(counting, shape, parts.all, channels, states);
  count_scan_carry<T>(counting, parts, channels, states);
  (void)ScanPassSums<C, 3>(counting, shape, channels, ceiling_divide(states, Index{scan_backward_pass<T>}));
  return counting.used();
}

}  // namespace detail

/// Bytes of device memory that selective_scan and selective_scan_backward need at most, for this shape and any smaller
/// one: about E / 32 values of type
/// compute_t<C> an element of B, and one an element of A_log, sequence and chunk. Activations in bfloat16 with more than 32
/// states need three more an element of u.
template <StorageScalar C>
std::size_t selective_scan_scratch(const Device& device, Shape shape, Index channels, Index states) {
  if (shape.lengths != nullptr) {
    return largest_run_scratch(shape,
                               [&](Shape run) { return selective_scan_scratch<C>(device, run, channels, states); });
  }
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
  if (each_packed_scan(scan, [&](const auto& part) { selective_scan_backward(device, part); })) return;
  using T = compute_t<C>;
  using Tuning = detail::ScanBackwardTuning<T, States>;
  using Summary = detail::ScanForwardTuning<T, States, false>;
  const Index channels = scan.u.columns, batch = scan.shape.batch, tokens = scan.shape.tokens();
  if (tokens == 0 || channels == 0) return;
  const Index groups = ceiling_divide(channels, Index{Tuning::width});
  const detail::ScanChunking chunking = detail::scan_backward_chunking<C>(device, scan.shape, channels, States);
  Arena arena = scan.scratch;
  const detail::ScanPartialSums<T> partial(arena, scan.shape, batch * chunking.count, channels, States);
  const detail::ScanCarry<T> carry(arena, chunking, batch, channels, States);
  const detail::ScanPassSums<C, 3> sums(arena, scan.shape, channels, Tuning::passes);
  const bool loads_together =
      detail::can_vectorise<Tuning::together>(scan.u, scan.delta, scan.z, scan.dy, scan.du, scan.ddelta, scan.dz);
  const bool summary_loads_together = detail::can_vectorise<Summary::together>(scan.delta, scan.z, scan.dy);
  if (chunking.count > 1) {
    const auto grid = static_cast<unsigned>(detail::scan_blocks<C>(scan.shape, channels) * chunking.count);
    for (int pass = 0; pass < Summary::passes; ++pass) {
      detail::scan_backward_summary_kernel<C, S, States>
          <<<grid, Summary::threads, 0, device.stream()>>>(scan, carry, pass * Summary::pass, summary_loads_together);
    }
    const auto carries = static_cast<unsigned>(ceiling_divide(batch * States * channels, Index{128}));
    detail::scan_carry_kernel<T, S, States, true>
        <<<carries, 128, 0, device.stream()>>>(carry, scan.a_log, scan.dstate, batch, channels);
  }
  const auto kernel = detail::scan_backward_kernel<C, S, States>;
  constexpr int shared = sizeof(typename detail::ScanBackwardThread<C, S, States>::Storage);
  static_assert(shared <= 99 * 1024);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared), "cudaFuncSetAttribute");
  const auto grid = static_cast<unsigned>(batch * groups * chunking.count);
  for (int pass = 0; pass < Tuning::passes; ++pass) {
    kernel<<<grid, Tuning::threads, shared, device.stream()>>>(scan, carry, partial, sums, pass * Tuning::pass,
                                                               loads_together);
  }
  const auto elements = static_cast<unsigned>(ceiling_divide(tokens * States, Index{256}));
  detail::scan_coefficient_gradients_kernel<C>
      <<<elements, 256, 0, device.stream()>>>(partial, groups, tokens, States, scan.db, scan.dc);
  const auto parameters = static_cast<unsigned>(ceiling_divide(channels * (States + 2), Index{256}));
  detail::scan_parameter_gradients_kernel<T><<<parameters, 256, 0, device.stream()>>>(
      partial, batch * chunking.count, channels, States, scan.da_log, scan.dd, scan.ddelta_bias);
  check_launch("selective_scan_backward");
}

}  // namespace moe_mamba::cuda
