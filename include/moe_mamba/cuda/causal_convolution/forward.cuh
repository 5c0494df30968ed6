#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "moe_mamba/cuda/causal_convolution/chunk_table.cuh"
#include "moe_mamba/cuda/causal_convolution/pairs.cuh"
#include "moe_mamba/cuda/causal_convolution/pairs_forward.cuh"
#include "moe_mamba/cuda/causal_convolution/tile.cuh"
#include "moe_mamba/cuda/common/launch.cuh"
#include "moe_mamba/cuda/common/mathematics.cuh"
#include "moe_mamba/cuda/common/rounding.cuh"
#include "moe_mamba/cuda/common/single_step.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/ops/causal_convolution.hpp"

/// The short causal convolution on a GPU, forward: y[t] = silu(bias + Σ_k weight[k] x[t + k - (K - 1)]), where the
/// inputs before the sequence are its running state.
///
/// A block takes 32 channels, one per lane, and a tile of 64 steps, which its warps share:
///
///   stage x of the tile and of the K - 1 steps before it; barrier
///   y of each step from K rows of shared memory
///   the first tile of a sequence: save the state before the call, write the one after it
///
/// Single steps have a separate kernel, and so have pairs of bfloat16 channels (pairs.cuh). Staged values and
/// arithmetic are in the compute type.
namespace moe_mamba::inline v0_2::cuda {

namespace detail {

/// One tile per block. Only the block with the first tile of a sequence reads and writes the running state.
template <class C, class S, int Taps, int Warps, SequenceKind kind>
__global__ void __launch_bounds__(convolution_width* Warps)
    convolution_kernel(const __grid_constant__ CausalConvolution<C, S, Taps> convolution,
                       const __grid_constant__ LaunchSequences<ConvolutionSequence> sequences) {
  using T = compute_t<C>;
  __shared__ T inputs[convolution_steps + Taps - 1][convolution_width];
  const Index channels = convolution.x.columns;
  const ConvolutionThread thread(convolution_groups(channels), channels);
  const SequenceBlock place = sequences.at<kind>(thread.block);
  const Index sequence = place.sequence, length = place.length;
  const Index first = Index{place.block} * convolution_steps, row = place.row + first;  // of the tile
  const int steps = static_cast<int>(min(Index{convolution_steps}, length - first));
  T* const state =
      convolution.state.data == nullptr ? nullptr : convolution.state.data + sequence * convolution.state.stride;
  stage_convolution_inputs<Taps, Warps, convolution_steps + Taps - 1, C>(
      convolution.x, state, row - (Taps - 1), first - (Taps - 1), steps + Taps - 1, thread, inputs);
  const ConvolutionWeights<T, S, Taps> weights(convolution.weight, convolution.bias, thread.channel, thread.inside);
  __syncthreads();
  if (!thread.inside) return;
  C* y = convolution.y.data + (row + thread.warp) * convolution.y.stride + thread.channel;
#pragma unroll(Taps > 8 ? 1 : 8)
  for (int t = thread.warp; t < convolution_steps; t += Warps) {
    if (t < steps) *y = stored_as<C>(silu_of<C>(weights.convolve(inputs + t, thread.lane)));
    y += Warps * convolution.y.stride;
  }
  if (first > 0) return;
  for (int j = thread.warp; j < Taps - 1; j += Warps) {
    if (convolution.saved_state != nullptr) {
      convolution.saved_state[(sequence * (Taps - 1) + j) * channels + thread.channel] = inputs[j][thread.lane];
    }
    if (state != nullptr) {
      const Index step = length - (Taps - 1) + j;
      state[j * channels + thread.channel] =
          step < 0 ? inputs[length + j][thread.lane]
                   : static_cast<T>(convolution.x.data[(row + step) * convolution.x.stride + thread.channel]);
    }
  }
}

/// The most taps for which single steps have a separate kernel: a thread holds all inputs in registers.
inline constexpr int most_step_taps = 16;

/// A single step: one thread per channel of a sequence. Sums in the order of convolution_kernel. With `vectorised` the
/// weights of a channel are loaded in vectors.
template <class C, class S, int Taps, bool vectorised>
__global__ void __launch_bounds__(StepGrid::most_threads)
    convolution_step_kernel(const __grid_constant__ CausalConvolution<C, S, Taps> convolution) {
  await_stream();
  release_stream();
  using T = compute_t<C>;
  const Index channels = convolution.x.columns, sequence = StepGrid::sequence(), channel = StepGrid::channel();
  if (sequence >= convolution.shape.batch || channel >= channels) return;
  T* const state = convolution.state.data == nullptr
                       ? nullptr
                       : convolution.state.data + sequence * convolution.state.stride + channel;
  // Everything is loaded before the first use.
  const C x = convolution.x.data[sequence * convolution.x.stride + channel];
  T inputs[Taps];
  S weights[Taps], bias{};
  if (convolution.bias != nullptr) bias = convolution.bias[channel];
#pragma unroll
  for (int k = 0; k < Taps - 1; ++k) inputs[k] = state == nullptr ? T(0) : state[k * channels];
  load_array<vectorised>(convolution.weight + channel * Taps, weights);
  inputs[Taps - 1] = static_cast<T>(x);
  T sum = static_cast<T>(bias);
#pragma unroll
  for (int k = 0; k < Taps; ++k) sum = fma(static_cast<T>(weights[k]), inputs[k], sum);
  convolution.y.data[sequence * convolution.y.stride + channel] = stored_as<C>(silu_of<C>(sum));
  if (convolution.saved_state != nullptr) {
    T* const saved = convolution.saved_state + sequence * (Taps - 1) * channels + channel;
#pragma unroll
    for (int k = 0; k < Taps - 1; ++k) saved[k * channels] = inputs[k];
  }
  if (state != nullptr) {
#pragma unroll
    for (int k = 0; k < Taps - 1; ++k) state[k * channels] = inputs[k + 1];
  }
}

/// A batch of equally long sequences, or of as many packed ones as fit in a table.
template <class C, class S, int Taps>
void launch_convolution(Device& device, const CausalConvolution<C, S, Taps>& convolution) {
  const Index channels = convolution.x.columns;
  const Shape& shape = convolution.shape;
  if constexpr (Taps <= most_step_taps) {
    if (shape.lengths == nullptr && shape.length == 1) {
      const auto kernel = can_vectorise<vector_divisor<S, Taps>>(convolution.weight, Taps)
                              ? convolution_step_kernel<C, S, Taps, true>
                              : convolution_step_kernel<C, S, Taps, false>;
      const StepGrid grid(device, shape.batch, channels);
      return launch_dependent(device, kernel, grid.blocks, grid.threads, 0, convolution);
    }
  }
  if constexpr (has_convolution_pairs<C, Taps>) {
    if (can_vectorise<2>(convolution.x, convolution.y)) {
      launch_convolution_pairs(device, convolution);
      return check_launch("causal_convolution");
    }
  }
  const auto grid = static_cast<unsigned>(convolution_chunks(shape, convolution_steps) * convolution_groups(channels));
  const LaunchSequences<ConvolutionSequence> sequences =
      shape.lengths == nullptr
          ? LaunchSequences<ConvolutionSequence>{.length = shape.length,
                                                 .blocks = static_cast<unsigned>(
                                                     convolution_chunks(shape.length, convolution_steps))}
          : put_convolution_chunks(device, shape, convolution_steps);
  const auto launch = [&](auto warps, auto kind) {
    convolution_kernel<C, S, Taps, decltype(warps)::value, decltype(kind)::value>
        <<<grid, convolution_width * warps, 0, device.stream()>>>(convolution, sequences);
  };
  sequences.with_kind([&](auto kind) {
    // One warp per block if sequences are too short for more.
    if constexpr (decltype(kind)::value == SequenceKind::equal) {
      if (shape.length < convolution_warps) return launch(std::integral_constant<int, 1>{}, kind);
    }
    launch(std::integral_constant<int, convolution_warps>{}, kind);
  });
  check_launch("causal_convolution");
}

}  // namespace detail

/// See ops/causal_convolution.hpp. Pointers are to device memory. saved_state may be null if no backward pass follows.
/// Neither allocates nor synchronises. Results of the forward pass do not depend on how a sequence is divided into
/// calls. Packed sequences take two launches per 120 or so of them. Throws Error if a kernel cannot be launched.
template <class C, class S, int Taps>
void causal_convolution(Device& device, const CausalConvolution<C, S, Taps>& convolution) {
  static_assert(Taps >= 1 && Taps <= detail::convolution_steps + 1,
                "causal_convolution: Convolution must be from 1 to 65 on a GPU");
  if (convolution.shape.batch == 0 || convolution.x.columns == 0) return;
  constexpr Index most = detail::SequenceTable<detail::ConvolutionSequence>::most;
  detail::for_sequence_groups(
      convolution.shape, most, [](Index) { return 0; }, [](int) { return true; },
      [&](const SequenceRun& run) { detail::launch_convolution(device, convolution.slice(run)); });
}

}  // namespace moe_mamba::inline v0_2::cuda
