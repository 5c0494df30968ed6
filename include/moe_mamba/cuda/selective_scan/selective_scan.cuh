#pragma once

#include <algorithm>
#include <cstddef>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cuda/common/launch.cuh"
#include "moe_mamba/cuda/common/mathematics.cuh"
#include "moe_mamba/cuda/common/rounding.cuh"
#include "moe_mamba/cuda/common/single_step.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/cuda/selective_scan/backward.cuh"
#include "moe_mamba/cuda/selective_scan/forward.cuh"
#include "moe_mamba/cuda/selective_scan/tile.cuh"
#include "moe_mamba/ops/selective_scan.hpp"

/// The selective scan on a GPU: launches, scratch memory, and the small kernels around those of forward.cuh and
/// backward.cuh.
namespace moe_mamba::inline v0_2::cuda {

namespace detail {

template <class C, class S, int States, bool narrow_blocks, bool summary>
__global__ void __launch_bounds__(ScanForwardTuning<compute_t<C>, States, narrow_blocks>::threads)
    scan_kernel(const __grid_constant__ SelectiveScan<C, S, States> scan,
                const __grid_constant__ ScanCarry<compute_t<C>> carry, const __grid_constant__ ScanPassSums<C, 1> sums,
                int first_state, bool vectorised) {
  using Forward = ScanForward<C, S, States, narrow_blocks, summary>;
  static_assert(sizeof(typename Forward::Storage) <= 48 * 1024, "more than a block is given");
  __shared__ typename Forward::Storage storage;
  Forward(scan, carry, sums, first_state, vectorised, storage).run();
}

template <class C, class S, int States>
__global__ void __launch_bounds__(ScanBackwardTuning<compute_t<C>, States>::threads,
                                  ScanBackwardTuning<compute_t<C>, States>::blocks)
    scan_backward_kernel(const __grid_constant__ SelectiveScanBackward<C, S, States> scan,
                         const __grid_constant__ ScanCarry<compute_t<C>> carry,
                         const __grid_constant__ ScanPartialSums<compute_t<C>> partial,
                         const __grid_constant__ ScanPassSums<C, 3> sums, int first_state, bool vectorised) {
  using Backward = ScanBackward<C, S, States>;
  extern __shared__ __align__(16) unsigned char shared[];
  auto& storage = *reinterpret_cast<typename Backward::Storage*>(shared);
  Backward(scan, carry, partial, sums, first_state, vectorised, storage).run();
}

/// Carries states over the chunks of a sequence: what a chunk makes of zero states becomes what it begins with, h ←
/// 2^(rate Σ_t Δ_t) h + own. With `backward` the gradients of states, from the last chunk to the first. A thread has
/// one state of one channel.
template <class C, class S, int States, bool backward>
__global__ void __launch_bounds__(128)
    scan_carry_kernel(ScanCarry<C> carry, const S* a_log, StateView<const C> initial, Index batch, Index channels) {
  const Index index = Index{blockIdx.x} * blockDim.x + threadIdx.x;
  if (index >= batch * States * channels) return;
  const Index channel = index % channels, n = index / channels % States, sequence = index / channels / States;
  const C rate = decay_rate<C>(a_log[channel * States + n]);
  C h = initial.data == nullptr ? C(0) : initial.data[sequence * initial.stride + n * channels + channel];
  const Index count = carry.chunking.count;
  constexpr int prefetched = 8;  // chunks whose values are loaded before the first is needed
  for (Index first = 0; first < count; first += prefetched) {
    C own[prefetched], sums[prefetched];
    const auto chunk = [&](int i) { return sequence * count + (backward ? count - 1 - first - i : first + i); };
    const auto state = [&](int i) { return carry.states + (chunk(i) * States + n) * channels + channel; };
#pragma unroll
    for (int i = 0; i < prefetched; ++i) {
      if (first + i >= count) break;
      own[i] = *state(i);
      sums[i] = carry.delta_sums[chunk(i) * channels + channel];
    }
#pragma unroll
    for (int i = 0; i < prefetched; ++i) {
      if (first + i >= count) break;
      *state(i) = h;
      h = fma(power_of_two(rate * sums[i]), h, own[i]);
    }
  }
}

/// States that a thread of a single step loads and holds at a time.
template <int States>
inline constexpr int step_group = States <= 16       ? States
                                  : States % 16 == 0 ? 16
                                  : States % 8 == 0  ? 8
                                  : States % 4 == 0  ? 4
                                                     : 1;

/// A single step: a thread has a channel of a sequence, state after state, and needs no other thread. With `vectorised`
/// rows of a_log, b and c are loaded in vectors.
template <class C, class S, int States, bool vectorised>
__global__ void __launch_bounds__(StepGrid::most_threads, sizeof(compute_t<C>) == 4 ? 4 : 2)
    scan_step_kernel(const __grid_constant__ SelectiveScan<C, S, States> scan) {
  await_stream();
  release_stream();
  using T = compute_t<C>;
  constexpr int group = step_group<States>;
  const Index channels = scan.u.columns, sequence = StepGrid::sequence(), channel = StepGrid::channel();
  if (sequence >= scan.shape.batch || channel >= channels) return;
  T* const state = scan.state.data == nullptr ? nullptr : scan.state.data + sequence * scan.state.stride + channel;
  const S* const a_log = scan.a_log + channel * States;
  const C* const b = scan.b.data + sequence * scan.b.stride;
  const C* const c = scan.c.data + sequence * scan.c.stride;
  const auto at = [&](const MatrixView<const C>& rows) { return rows.data[sequence * rows.stride + channel]; };
  T h[group];
  S a_logs[group];
  C bs[group], cs[group];
  // All is loaded before the first is needed: nothing is converted here, and the first operands of arithmetic are
  // loaded last, after stores, or the compiler would wait for them before other loads.
  const auto begin = [&](int first) {
#pragma unroll
    for (int i = 0; i < group; ++i) h[i] = state == nullptr ? T(0) : state[(first + i) * channels];
    load_array<vectorised>(a_log + first, a_logs);
    load_array<vectorised>(b + first, bs), load_array<vectorised>(c + first, cs);
    if (scan.checkpoints != nullptr) {
      T* const checkpoint = scan.checkpoints + (sequence * States + first) * channels + channel;
#pragma unroll
      for (int i = 0; i < group; ++i) checkpoint[i * channels] = h[i];
    }
  };
  begin(0);
  const C u_loaded = at(scan.u), delta_loaded = at(scan.delta), z_loaded = at(scan.z);
  const S bias = scan.delta_bias[channel], d = scan.d[channel];
  const T u = static_cast<T>(u_loaded);
  const T delta = softplus_of<C>(static_cast<T>(delta_loaded) + static_cast<T>(bias));
  T sum = static_cast<T>(d) * u;
  for (int first = 0; first < States; first += group) {
    if (first > 0) begin(first);
#pragma unroll
    for (int i = 0; i < group; ++i) {
      const T decay = power_of_two(delta * decay_rate<T>(a_logs[i]));
      h[i] = fma(decay, h[i], delta * u * static_cast<T>(bs[i]));
      sum = fma(static_cast<T>(cs[i]), h[i], sum);
    }
    if (state != nullptr) {
#pragma unroll
      for (int i = 0; i < group; ++i) state[(first + i) * channels] = h[i];
    }
  }
  scan.y.data[sequence * scan.y.stride + channel] = stored_as<C>(sum * silu_of<C>(static_cast<T>(z_loaded)));
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

/// Blocks of a launch over whole sequences.
template <class C>
Index scan_blocks(Shape shape, Index channels) {
  return shape.batch * ceiling_divide(channels, Index{scan_forward_width(sizeof(compute_t<C>))});
}

template <class C, int States>
bool scan_takes_narrow(const Device& device, Shape shape, Index channels) {
  return scan_has_narrow<compute_t<C>, States> &&
         scan_takes_narrow(device.processors(), scan_forward_resident<compute_t<C>>, scan_blocks<C>(shape, channels));
}

template <class C, int States>
ScanChunking scan_forward_chunking(const Device& device, Shape shape, Index channels) {
  if (scan_takes_narrow<C, States>(device, shape, channels)) return whole_scan(shape.length);
  return scan_chunking(device.processors(), scan_forward_resident<compute_t<C>>, scan_blocks<C>(shape, channels),
                       shape.length);
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
  count_scan_carry<T>(
      counting,
      most_scan_parts(device.processors(), scan_forward_resident<compute_t<C>>, groups, shape.batch, shape.length),
      channels, states);
  (void)ScanPassSums<C, 1>(counting, shape, channels, ceiling_divide(states, Index{scan_forward_pass<T>}));
  return counting.used();
}

template <class C>
ScanChunking scan_backward_chunking(const Device& device, Shape shape, Index channels, Index states) {
  const Index groups = ceiling_divide(channels, Index{scan_backward_width(sizeof(compute_t<C>), states)});
  return scan_chunking(device.processors(), scan_backward_resident, shape.batch * groups, shape.length);
}

template <class C>
std::size_t scan_backward_scratch(const Device& device, Shape shape, Index channels, Index states) {
  using T = compute_t<C>;
  const Index groups = ceiling_divide(channels, Index{scan_backward_width(sizeof(T), states)});
  const ScanParts parts =
      most_scan_parts(device.processors(), scan_backward_resident, groups, shape.batch, shape.length);
  Arena counting;
  (void)ScanPartialSums<T>(counting, shape, parts.all, channels, states);
  count_scan_carry<T>(counting, parts, channels, states);
  (void)ScanPassSums<C, 3>(counting, shape, channels, ceiling_divide(states, Index{scan_backward_pass<T>}));
  return counting.used();
}

}  // namespace detail

/// See ops/selective_scan.hpp. Pointers are to device memory. Nothing is allocated and nothing waits; outputs must not
/// overlap inputs. A length of 0 leaves the states as they are.
///
/// Errors: decays below 2^-126 (double: 2^-1022) count as 0. A NaN in delta, u, B, C or z reaches y, one in delta, u,
/// B, a_log or the state stays in the state. The same call gives the same bits each time; how a sequence is cut into
/// calls, and the size of its batch, change them by rounding. Throws Error where a kernel cannot be launched.
template <class C, class S, int States>
void selective_scan(Device& device, const SelectiveScan<C, S, States>& scan) {
  if (each_packed_scan(scan, [&](const auto& part) { selective_scan(device, part); })) return;
  static_assert(States >= 1, "selective_scan: State must be at least 1");
  using T = compute_t<C>;
  using Tuning = detail::ScanForwardTuning<T, States, false>;
  const Index channels = scan.u.columns, batch = scan.shape.batch;
  if (scan.shape.tokens() == 0 || channels == 0) return;
  if (scan.shape.length == 1) {
    constexpr int group = detail::step_group<States>;
    constexpr int of_states = detail::vector_divisor<S, group>, of_coefficients = detail::vector_divisor<C, group>;
    const bool vectorised = detail::can_vectorise<of_states>(scan.a_log, States) &&
                            detail::can_vectorise<of_coefficients>(scan.b.data, scan.b.stride) &&
                            detail::can_vectorise<of_coefficients>(scan.c.data, scan.c.stride);
    const detail::StepGrid grid(device, batch, channels);
    const auto kernel =
        vectorised ? detail::scan_step_kernel<C, S, States, true> : detail::scan_step_kernel<C, S, States, false>;
    return detail::launch_dependent(device, kernel, grid.blocks, grid.threads, 0, scan);
  }
  const Index blocks = detail::scan_blocks<C>(scan.shape, channels);
  const detail::ScanChunking chunking = detail::scan_forward_chunking<C, States>(device, scan.shape, channels);
  const bool vectorised = detail::can_vectorise<Tuning::vector>(scan.u, scan.delta, scan.z, scan.y);
  Arena arena = scan.scratch;
  const detail::ScanCarry<T> carry(arena, chunking, batch, channels, States);
  const detail::ScanPassSums<C, 1> sums(arena, scan.shape, channels, Tuning::passes);
  if constexpr (detail::scan_has_narrow<T, States>) {
    if (detail::scan_takes_narrow<C, States>(device, scan.shape, channels)) {
      using NarrowTuning = detail::ScanForwardTuning<T, States, true>;
      static_assert(NarrowTuning::vector <= Tuning::vector && NarrowTuning::passes == Tuning::passes);
      const auto narrow_grid = static_cast<unsigned>(batch * ceiling_divide(channels, Index{NarrowTuning::width}));
      for (int pass = 0; pass < Tuning::passes; ++pass) {
        detail::scan_kernel<C, S, States, true, false><<<narrow_grid, NarrowTuning::threads, 0, device.stream()>>>(
            scan, carry, sums, pass * Tuning::pass, vectorised);
      }
      return check_launch("selective_scan");
    }
  }
  const auto grid = static_cast<unsigned>(blocks * chunking.count);
  if (chunking.count > 1) {
    for (int pass = 0; pass < Tuning::passes; ++pass) {
      detail::scan_kernel<C, S, States, false, true>
          <<<grid, Tuning::threads, 0, device.stream()>>>(scan, carry, sums, pass * Tuning::pass, vectorised);
    }
    const auto carries = static_cast<unsigned>(ceiling_divide(batch * States * channels, Index{128}));
    detail::scan_carry_kernel<T, S, States, false>
        <<<carries, 128, 0, device.stream()>>>(carry, scan.a_log, scan.state, batch, channels);
  }
  for (int pass = 0; pass < Tuning::passes; ++pass) {
    detail::scan_kernel<C, S, States, false, false>
        <<<grid, Tuning::threads, 0, device.stream()>>>(scan, carry, sums, pass * Tuning::pass, vectorised);
  }
  check_launch("selective_scan");
}

/// Bytes of device memory that selective_scan and selective_scan_backward need at most, for this shape and any smaller
/// one: about E / 32 values of type compute_t<C> for each element of B, and one for each element of a_log, sequence and
/// chunk. bfloat16 activations with more than 32 states need three more for each element of u.
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
  const bool vectorised =
      detail::can_vectorise<Tuning::vector>(scan.u, scan.delta, scan.z, scan.dy, scan.du, scan.ddelta, scan.dz);
  const bool summary_vectorised = detail::can_vectorise<Summary::vector>(scan.delta, scan.z, scan.dy);
  if (chunking.count > 1) {
    const auto grid = static_cast<unsigned>(detail::scan_blocks<C>(scan.shape, channels) * chunking.count);
    for (int pass = 0; pass < Summary::passes; ++pass) {
      detail::scan_backward_summary_kernel<C, S, States>
          <<<grid, Summary::threads, 0, device.stream()>>>(scan, carry, pass * Summary::pass, summary_vectorised);
    }
    const auto carries = static_cast<unsigned>(ceiling_divide(batch * States * channels, Index{128}));
    detail::scan_carry_kernel<T, S, States, true>
        <<<carries, 128, 0, device.stream()>>>(carry, scan.a_log, scan.dstate, batch, channels);
  }
  const auto kernel = detail::scan_backward_kernel<C, S, States>;
  constexpr int shared = sizeof(typename detail::ScanBackward<C, S, States>::Storage);
  static_assert(shared <= 99 * 1024);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared), "cudaFuncSetAttribute");
  const auto grid = static_cast<unsigned>(batch * groups * chunking.count);
  for (int pass = 0; pass < Tuning::passes; ++pass) {
    kernel<<<grid, Tuning::threads, shared, device.stream()>>>(scan, carry, partial, sums, pass * Tuning::pass,
                                                               vectorised);
  }
  const auto elements = static_cast<unsigned>(ceiling_divide(tokens * States, Index{256}));
  detail::scan_coefficient_gradients_kernel<C>
      <<<elements, 256, 0, device.stream()>>>(partial, groups, tokens, States, scan.db, scan.dc);
  const auto parameters = static_cast<unsigned>(ceiling_divide(channels * (States + 2), Index{256}));
  detail::scan_parameter_gradients_kernel<T><<<parameters, 256, 0, device.stream()>>>(
      partial, batch * chunking.count, channels, States, scan.da_log, scan.dd, scan.ddelta_bias);
  check_launch("selective_scan_backward");
}

}  // namespace moe_mamba::inline v0_2::cuda
