#pragma once

#include "moe_mamba/cuda/block/scan_forward.cuh"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/ops/selective_scan.hpp"

/// The selective scan on the GPU.
///
/// Neighbouring lanes are neighbouring channels, so that rows are read as they lie; the warps of a block share out the
/// states of the same 64 channels (32 in double), two of a thread. Time goes by in tiles: the block computes Δ and Δ u of a
/// tile once and stages them, B and C in shared memory; each warp runs its states through the tile and leaves its part of
/// Σ_n C h; the block adds the parts in order and applies the gate. The next tile is made ready meanwhile, and the one
/// after that asked for, so that there is one barrier a tile. A state update costs 4 instructions and a power of two.
///
/// What binds it beside instructions (155 an element, of which 80 are the states') is shared memory: a value of B or C
/// takes as long to come as one of a vector although all lanes get the same, which is why a thread has two channels.
/// An H100 takes 0.27 ms for 8 sequences of 2048 steps of 2048 channels of 16 states in float, 67 % of the rate of a copy
/// of as many bytes, and of 8192 channels 78 %; for fewer there are two warps a scheduler and no more.
///
/// Where channels are too few to occupy the device, time is cut into chunks: a first launch finds what each chunk makes
/// of zero states, a second carries the states over the chunks (the decay over a chunk is one power of two, of the sum
/// of its Δ), a third is the scan proper, of all chunks at once. A single step has a kernel of its own.
namespace moe_mamba::cuda {

namespace detail {

/// A single step: a thread takes a channel of a sequence, state after state, and needs no other thread.
template <class C, class S, int States>
__global__ void __launch_bounds__(128) scan_step_kernel(const __grid_constant__ SelectiveScan<C, S, States> scan) {
  const Index channels = scan.u.columns, index = Index{blockIdx.x} * blockDim.x + threadIdx.x;
  const Index sequence = index / channels, channel = index - sequence * channels;
  if (sequence >= scan.shape.batch) return;
  C* const state = scan.state.data == nullptr ? nullptr : scan.state.data + sequence * scan.state.stride + channel;
  C* const checkpoint =
      scan.checkpoints == nullptr ? nullptr : scan.checkpoints + sequence * States * channels + channel;
  const auto at = [&](const MatrixView<const C>& rows) { return rows.data[sequence * rows.stride + channel]; };
  const C u = at(scan.u), z = at(scan.z);
  const C delta = softplus_of(at(scan.delta) + static_cast<C>(scan.delta_bias[channel]));
  C sum = static_cast<C>(scan.d[channel]) * u;
  constexpr int group = States % 16 == 0 ? 16 : States % 8 == 0 ? 8 : States % 4 == 0 ? 4 : 1;  // read at once
  for (Index first = 0; first < States; first += group) {
    C h[group];
#pragma unroll
    for (int i = 0; i < group; ++i) h[i] = state == nullptr ? C(0) : state[(first + i) * channels];
#pragma unroll
    for (int i = 0; i < group; ++i) {
      const Index n = first + i;
      if (checkpoint != nullptr) checkpoint[n * channels] = h[i];
      const C decay = power_of_two(delta * decay_rate<C>(scan.a_log[channel * States + n]));
      h[i] = fma(decay, h[i], delta * u * scan.b.data[sequence * scan.b.stride + n]);
      if (state != nullptr) state[n * channels] = h[i];
      sum = fma(scan.c.data[sequence * scan.c.stride + n], h[i], sum);
    }
  }
  scan.y.data[sequence * scan.y.stride + channel] = sum * silu_of(z);
}

template <class C, class S, int States, bool Summary>
__global__ void __launch_bounds__(ScanForwardTuning<C, States>::threads)
    scan_kernel(const __grid_constant__ SelectiveScan<C, S, States> scan, const __grid_constant__ ScanCarry<C> carry,
                int first_state, bool loads_together) {
  using Thread = ScanThread<C, S, States, Summary>;
  __shared__ typename Thread::Storage storage;
  Thread(scan, carry, first_state, loads_together, storage).run();
}

/// Blocks of a launch over whole sequences.
template <class C>
Index scan_blocks(Shape shape, Index channels) {
  return shape.batch * ceiling_divide(channels, Index{scan_forward_width(sizeof(C))});
}

template <class C>
ScanChunking scan_forward_chunking(const Device& device, Shape shape, Index channels) {
  return scan_chunking(device.processors(), sizeof(C) == 4 ? 2 : 4, scan_blocks<C>(shape, channels), shape.length);
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
  static_assert(States >= 1, "selective_scan: State must be at least 1");
  using Tuning = detail::ScanForwardTuning<C, States>;
  const Index channels = scan.u.columns, batch = scan.shape.batch;
  if (scan.shape.tokens() == 0 || channels == 0) return;
  if (scan.shape.length == 1) {
    const auto threads = static_cast<unsigned>(ceiling_divide(batch * channels, Index{128}));
    detail::scan_step_kernel<C, S, States><<<threads, 128, 0, device.stream()>>>(scan);
    check_launch("selective_scan");
    return;
  }
  const Index blocks = detail::scan_blocks<C>(scan.shape, channels);
  const detail::ScanChunking chunking = detail::scan_forward_chunking<C>(device, scan.shape, channels);
  const auto together = [](const auto&... rows) { return (detail::loads_together(rows, Tuning::together) && ...); };
  const bool loads_together = together(scan.u, scan.delta, scan.z, scan.y);
  Arena arena = scan.scratch;
  const detail::ScanCarry<C> carry(arena, chunking, batch, channels, States);
  const auto grid = static_cast<unsigned>(blocks * chunking.count);
  if (chunking.count > 1) {
    for (int pass = 0; pass < Tuning::passes; ++pass) {
      detail::scan_kernel<C, S, States, true>
          <<<grid, Tuning::threads, 0, device.stream()>>>(scan, carry, pass * Tuning::pass, loads_together);
    }
    const auto carries = static_cast<unsigned>(ceiling_divide(batch * States * channels, Index{128}));
    detail::scan_carry_kernel<C, S, States, false>
        <<<carries, 128, 0, device.stream()>>>(carry, scan.a_log, scan.state, batch, channels);
  }
  for (int pass = 0; pass < Tuning::passes; ++pass) {
    detail::scan_kernel<C, S, States, false>
        <<<grid, Tuning::threads, 0, device.stream()>>>(scan, carry, pass * Tuning::pass, loads_together);
  }
  check_launch("selective_scan");
}

}  // namespace moe_mamba::cuda
