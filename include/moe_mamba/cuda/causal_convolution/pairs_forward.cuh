#pragma once

#include <algorithm>
#include <type_traits>

#include "moe_mamba/cuda/causal_convolution/chunk_table.cuh"
#include "moe_mamba/cuda/causal_convolution/pairs.cuh"
#include "moe_mamba/cuda/common/mathematics.cuh"
#include "moe_mamba/cuda/common/row_cursor.cuh"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/device.hpp"

/// The convolution of pairs of channels, forward; forward.cuh has the formula.
namespace moe_mamba::inline v0_2::cuda::detail {

/// Minimum number of resident blocks per multiprocessor, forward.
template <int Taps>
inline constexpr int pairs_forward_blocks = Taps <= 4 ? 5 : 3;

/// One chunk per warp. Only the warp with the first steps of a sequence reads and writes the running state.
template <class C, class S, int Taps, SequenceKind kind>
__global__ void __launch_bounds__(warp_size* most_pair_warps, pairs_forward_blocks<Taps>)
    convolution_pairs_kernel(const __grid_constant__ CausalConvolution<C, S, Taps> convolution,
                             const __grid_constant__ PairChunks chunks) {
  constexpr int around = Taps - 1;
  const Index channels = convolution.x.columns, channel = PairGrid::channel();
  const unsigned chunk = chunks.first(PairGrid::block());
  if (chunk >= chunks.total || channel >= channels) return;
  const auto [sequence, first_row, length, index] = chunks.sequences.at<kind>(chunk);
  const Index first = Index{index} * chunks.steps, row = first_row + first;
  float* const state =
      convolution.state.data == nullptr ? nullptr : convolution.state.data + sequence * convolution.state.stride;
  const PairWeights<Taps> weights(convolution.weight, convolution.bias, channel, true);
  ChannelPair before[Taps];  // the last K - 1
  load_pairs_before<Taps, C>(convolution.x, state, row, first, channel, before);
  if (first == 0 && convolution.saved_state != nullptr) {
    float* const saved = convolution.saved_state + sequence * around * channels + channel;
#pragma unroll
    for (int j = 0; j < around; ++j) {
#pragma unroll
      for (int c = 0; c < 2; ++c) saved[j * channels + c] = before[j].values[c];
    }
  }
  RowCursor<const C, 1> from(convolution.x, row, channel);
  RowCursor<C, 1> to(convolution.y, row, channel);
  const auto convolve = [&](auto all_there, int present) {
    constexpr bool whole = decltype(all_there)::value;
    Packed<C, 2> stored[pair_batch];
    load_pairs<pair_batch, whole, C>(from, present, stored);
    ChannelPair inputs[around + pair_batch];
#pragma unroll
    for (int j = 0; j < around; ++j) inputs[j] = before[j];
#pragma unroll
    for (int t = 0; t < pair_batch; ++t) {
      inputs[around + t] = widen(stored[t]);
      ChannelPair y = weights.convolve(inputs + t);
#pragma unroll
      for (int c = 0; c < 2; ++c) y.values[c] = silu_of<bfloat16>(y.values[c]);
      to.template store<true>(narrow<C, 2>(y), whole || t < present ? 2 : 0);
      to.move(1);
    }
#pragma unroll
    for (int j = 0; j < around; ++j) before[j] = inputs[pair_batch + j];
  };
  for (int left = static_cast<int>(min(Index{chunks.steps}, length - first)); left > 0; left -= pair_batch) {
    if (left >= pair_batch) {
      convolve(std::true_type{}, pair_batch);
    } else {
      convolve(std::false_type{}, left);
    }
  }
  if (first > 0 || state == nullptr) return;
#pragma unroll
  for (int j = 0; j < around; ++j) {
    // A short sequence shifts the rest of the old state to the front, which is not overwritten yet.
    const Index step = length - around + j;
    const C* const input = convolution.x.data + (first_row + step) * convolution.x.stride + channel;
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      state[j * channels + channel + c] =
          step < 0 ? state[(length + j) * channels + channel + c] : static_cast<float>(input[c]);
    }
  }
}

template <class C, class S, int Taps>
void launch_convolution_pairs(Device& device, const CausalConvolution<C, S, Taps>& convolution) {
  const Index columns = convolution.x.columns;
  const Shape& shape = convolution.shape;
  // Long chunks load weights less often; short chunks and small blocks keep more multiprocessors busy.
  PairChunks chunks(shape, 4 * pair_batch, 1, most_pair_warps);
  const auto few = [&](int blocks) {
    return chunks.blocks() * PairGrid::groups(columns) < blocks * device.processors();
  };
  for (int batches = 2; batches > 0 && few(3); batches /= 2) {
    chunks = PairChunks(shape, batches * pair_batch, 1, most_pair_warps);
  }
  if (few(1)) chunks.warps = 1;
  if (shape.lengths != nullptr) chunks.sequences = put_convolution_chunks(device, shape, chunks.steps);
  chunks.sequences.with_kind([&](auto kind) {
    const dim3 grid = PairGrid::of(columns, chunks.blocks());
    convolution_pairs_kernel<C, S, Taps, decltype(kind)::value>
        <<<grid, static_cast<unsigned>(warp_size * chunks.warps), 0, device.stream()>>>(convolution, chunks);
  });
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
