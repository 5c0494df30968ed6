#pragma once

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cuda/common/launch.cuh"
#include "moe_mamba/cuda/common/mathematics.cuh"
#include "moe_mamba/cuda/common/rounding.cuh"
#include "moe_mamba/cuda/common/single_step.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/cuda/selective_scan/forward_thread.cuh"
#include "moe_mamba/cuda/selective_scan/tile.cuh"
#include "moe_mamba/cuda/selective_scan/tuning.cuh"
#include "moe_mamba/ops/selective_scan.hpp"

/// The selective scan on the GPU.
///
/// Neighbouring lanes are neighbouring channels, so that rows are read as they lie; the warps of a block share out the
/// states of the same 64 channels (32 in double), two of a thread. Time goes by in tiles: the block computes Δ and Δ u of a
/// tile once and stages them, B and C in shared memory; each warp runs its states through the tile and leaves its part of
/// Σ_n C h; the block adds the parts in order and applies the gate. The next tile is made ready meanwhile, and the one
/// after that asked for, so that there is one barrier a tile. A state update costs 4 instructions and a power of two.
///
/// What binds it beside instructions (155 an element in float, 140 in bfloat16, of which 80 are the states') is shared
/// memory: a value of B or C takes as long to come as one of a vector although all lanes get the same, which is why a
/// thread has two channels. 256 blocks are two warps a scheduler and no more; docs/cuda.md has the times.
///
/// Where channels are too few for that, blocks are narrow: one channel of a thread. Where they are too few even so, time is
/// cut into chunks: a first launch finds what each chunk makes of zero states, a second carries the states over the chunks
/// (the decay over a chunk is one power of two, of the sum of its Δ), a third is the scan proper, of all chunks at once. A
/// single step has a kernel of its own.
///
/// Activations in bfloat16 are widened behind loads and rounded in front of stores; everything between is in float.
namespace moe_mamba::cuda {

namespace detail {

/// States that a thread of a single step holds at once, and asks for at once.
template <int States>
inline constexpr int step_group = States <= 16       ? States
                                  : States % 16 == 0 ? 16
                                  : States % 8 == 0  ? 8
                                  : States % 4 == 0  ? 4
                                                     : 1;

/// A single step: a thread takes a channel of a sequence, state after state, and needs no other thread. Aligned rows of
/// a_log, b and c are such that several states can be loaded at once.
template <class C, class S, int States, bool Aligned>
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
  // All of it on its way before the first is needed: nothing is converted here, and what arithmetic begins with is asked
  // for last, behind stores, or the compiler would have the threads wait for it in front of other loads.
  const auto begin = [&](int first) {
#pragma unroll
    for (int i = 0; i < group; ++i) h[i] = state == nullptr ? T(0) : state[(first + i) * channels];
    load_array<Aligned>(a_log + first, a_logs);
    load_array<Aligned>(b + first, bs), load_array<Aligned>(c + first, cs);
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

template <class C, class S, int States, bool Narrow, bool Summary>
__global__ void __launch_bounds__(ScanForwardTuning<compute_t<C>, States, Narrow>::threads)
    scan_kernel(const __grid_constant__ SelectiveScan<C, S, States> scan,
                const __grid_constant__ ScanCarry<compute_t<C>> carry, const __grid_constant__ ScanPassSums<C, 1> sums,
                int first_state, bool loads_together) {
  using Thread = ScanThread<C, S, States, Narrow, Summary>;
  static_assert(sizeof(typename Thread::Storage) <= 48 * 1024, "more than a block is given");
  __shared__ typename Thread::Storage storage;
  Thread(scan, carry, sums, first_state, loads_together, storage).run();
}

/// Blocks of a launch over whole sequences.
template <class C>
Index scan_blocks(Shape shape, Index channels) {
  return shape.batch * ceiling_divide(channels, Index{scan_forward_width(sizeof(compute_t<C>))});
}

/// Blocks that a multiprocessor is best given.
template <class C>
inline constexpr Index scan_forward_resident = sizeof(compute_t<C>) == 4 ? 2 : 4;

template <class C, int States>
bool scan_takes_narrow(const Device& device, Shape shape, Index channels) {
  return scan_has_narrow<compute_t<C>, States> &&
         scan_takes_narrow(device.processors(), scan_forward_resident<C>, scan_blocks<C>(shape, channels));
}

template <class C, int States>
ScanChunking scan_forward_chunking(const Device& device, Shape shape, Index channels) {
  if (scan_takes_narrow<C, States>(device, shape, channels)) return whole_scan(shape.length);
  return scan_chunking(device.processors(), scan_forward_resident<C>, scan_blocks<C>(shape, channels), shape.length);
}

}  // namespace detail

/// See ops/selective_scan.hpp. Pointers are to device memory. Nothing is allocated and nothing waits; outputs must not
/// overlap inputs. A length of 0 leaves the states as they are.
///
/// Errors: decays below 2^-126 (double: 2^-1022) count as 0. A NaN in delta, u, B, C or z reaches y, one in delta, u, B,
/// a_log or the state stays in the state. The same call gives the same bits each time; how a sequence is cut into calls,
/// and the size of its batch, change them by rounding. Throws Error where a kernel cannot be launched.
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
    const bool aligned = detail::can_vectorise<of_states>(scan.a_log, States) &&
                         detail::can_vectorise<of_coefficients>(scan.b.data, scan.b.stride) &&
                         detail::can_vectorise<of_coefficients>(scan.c.data, scan.c.stride);
    const detail::StepGrid grid(device, batch, channels);
    const auto kernel =
        aligned ? detail::scan_step_kernel<C, S, States, true> : detail::scan_step_kernel<C, S, States, false>;
    return detail::launch_dependent(device, kernel, grid.blocks, grid.threads, 0, scan);
  }
  const Index blocks = detail::scan_blocks<C>(scan.shape, channels);
  const detail::ScanChunking chunking = detail::scan_forward_chunking<C, States>(device, scan.shape, channels);
  const bool loads_together = detail::can_vectorise<Tuning::together>(scan.u, scan.delta, scan.z, scan.y);
  Arena arena = scan.scratch;
  const detail::ScanCarry<T> carry(arena, chunking, batch, channels, States);
  const detail::ScanPassSums<C, 1> sums(arena, scan.shape, channels, Tuning::passes);
  if constexpr (detail::scan_has_narrow<T, States>) {
    if (detail::scan_takes_narrow<C, States>(device, scan.shape, channels)) {
      using NarrowTuning = detail::ScanForwardTuning<T, States, true>;
      static_assert(NarrowTuning::together <= Tuning::together && NarrowTuning::passes == Tuning::passes);
      const auto narrow_grid = static_cast<unsigned>(batch * ceiling_divide(channels, Index{NarrowTuning::width}));
      for (int pass = 0; pass < Tuning::passes; ++pass) {
        detail::scan_kernel<C, S, States, true, false><<<narrow_grid, NarrowTuning::threads, 0, device.stream()>>>(
            scan, carry, sums, pass * Tuning::pass, loads_together);
      }
      return check_launch("selective_scan");
    }
  }
  const auto grid = static_cast<unsigned>(blocks * chunking.count);
  if (chunking.count > 1) {
    for (int pass = 0; pass < Tuning::passes; ++pass) {
      detail::scan_kernel<C, S, States, false, true>
          <<<grid, Tuning::threads, 0, device.stream()>>>(scan, carry, sums, pass * Tuning::pass, loads_together);
    }
    const auto carries = static_cast<unsigned>(ceiling_divide(batch * States * channels, Index{128}));
    detail::scan_carry_kernel<T, S, States, false>
        <<<carries, 128, 0, device.stream()>>>(carry, scan.a_log, scan.state, batch, channels);
  }
  for (int pass = 0; pass < Tuning::passes; ++pass) {
    detail::scan_kernel<C, S, States, false, false>
        <<<grid, Tuning::threads, 0, device.stream()>>>(scan, carry, sums, pass * Tuning::pass, loads_together);
  }
  check_launch("selective_scan");
}

}  // namespace moe_mamba::cuda
