#pragma once

#include <algorithm>

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cuda/causal_convolution/pairs.cuh"
#include "moe_mamba/cuda/common/mathematics.cuh"
#include "moe_mamba/cuda/common/row_cursor.cuh"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/device.hpp"

/// The convolution of pairs of channels, backward; backward.cuh has the formulas.
namespace moe_mamba::inline v0_2::cuda::detail {

/// A warp's chunk of a sequence. dx of a step needs ds of that step and of the K - 1 steps after it, so dx lags K - 1
/// steps behind ds. A chunk adds to the gradients of the parameters the ds of its own steps, shifted by K - 1.
template <class C, class S, int Taps>
struct PairsBackward {
  static constexpr int around = Taps - 1;
  const CausalConvolutionBackward<C, S, Taps>& convolution;
  const PairWeights<Taps> weights;
  const Index channel;
  ChannelPair dweight[Taps] = {}, dbias = {};

  __device__ __forceinline__ PairsBackward(const CausalConvolutionBackward<C, S, Taps>& from, Index of_channel,
                                           bool inside)
      : convolution(from), weights(from.weight, from.bias, of_channel, inside), channel(of_channel) {}

  struct Chunk {
    RowCursor<const C, 1> x, dy;
    RowCursor<C, 1> dx;
    const float* dstate;                 // gradient with respect to the sequence's final state
    ChannelPair inputs[Taps], ds[Taps];  // the last K - 1
    int left;                            // remaining steps; negative past the sequence's end
  };

  /// The next `Rows` steps. With Whole, all of them exist. With Opening, no dx is complete yet.
  template <int Rows, bool Whole, bool Opening>
  __device__ __forceinline__ void advance(Chunk& chunk, bool counted) {
    Packed<C, 2> x[Rows], dy[Rows];
    load_pairs<Rows, Whole, C>(chunk.x, chunk.left, x);
    load_pairs<Rows, Whole, C>(chunk.dy, chunk.left, dy);
    ChannelPair inputs[around + Rows], ds[around + Rows];
#pragma unroll
    for (int j = 0; j < around; ++j) {
      inputs[j] = chunk.inputs[j];
      ds[j] = chunk.ds[j];
    }
#pragma unroll
    for (int i = 0; i < Rows; ++i) {
      inputs[around + i] = widen(x[i]);
      const ChannelPair sum = weights.convolve(inputs + i), slope = widen(dy[i]);
      ChannelPair& next = ds[around + i];
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        next.values[c] =
            Whole || i < chunk.left ? slope.values[c] * silu_and_slope_of<bfloat16>(sum.values[c]).slope : 0.0f;
      }
      if (!Opening || counted) add(next, inputs + i);
      if constexpr (!Opening) {
        ChannelPair dx = {};
#pragma unroll
        for (int k = 0; k < Taps; ++k) {
#pragma unroll
          for (int c = 0; c < 2; ++c)
            dx.values[c] = fma(weights.taps[around - k].values[c], ds[i + k].values[c], dx.values[c]);
        }
        const bool there = Whole || i - around < chunk.left;
        if (!Whole && i >= chunk.left && there && chunk.dstate != nullptr) {
          // Past the end of the sequence, step i corresponds to the element of the final state at the same distance.
#pragma unroll
          for (int c = 0; c < 2; ++c) {
            dx.values[c] += chunk.dstate[Index{i - chunk.left} * convolution.x.columns + channel + c];
          }
        }
        chunk.dx.template store<true>(narrow<C, 2>(dx), there ? 2 : 0);
        chunk.dx.move(1);
      }
    }
#pragma unroll
    for (int j = 0; j < around; ++j) {
      chunk.inputs[j] = inputs[Rows + j];
      chunk.ds[j] = ds[Rows + j];
    }
    chunk.left -= Rows;
  }

  __device__ __forceinline__ void add(const ChannelPair& ds, const ChannelPair* inputs) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
#pragma unroll
      for (int k = 0; k < Taps; ++k)
        dweight[k].values[c] = fma(ds.values[c], inputs[k].values[c], dweight[k].values[c]);
      dbias.values[c] += ds.values[c];
    }
  }

  /// `steps` steps of a sequence from `first` on, in whole batches, or up to its end.
  __device__ __forceinline__ void run(const SequenceBlock& of, Index first, int steps) {
    const Index sequence = of.sequence, length = of.length, row = of.row + first;
    Chunk chunk{
        {convolution.x, row, channel},
        {convolution.dy, row, channel},
        {convolution.dx, row, channel},
        convolution.dstate.data == nullptr ? nullptr : convolution.dstate.data + sequence * convolution.dstate.stride,
        {},
        {},
        static_cast<int>(min(Index{steps + around}, length - first))};
    load_pairs_before<Taps, C>(convolution.x, convolution.saved_state + sequence * around * convolution.x.columns, row,
                               first, channel, chunk.inputs);
    if constexpr (around > 0) {
      if (chunk.left >= around) {
        advance<around, true, true>(chunk, first == 0);
      } else {
        advance<around, false, true>(chunk, first == 0);
      }
    }
    for (int done = 0; done < steps && chunk.left > -around; done += pair_batch) {
      if (chunk.left >= pair_batch) {
        advance<pair_batch, true, false>(chunk, true);
      } else {
        advance<pair_batch, false, false>(chunk, true);
      }
    }
  }
};

/// Minimum number of resident blocks per multiprocessor, backward.
template <int Taps>
inline constexpr int pairs_backward_blocks = Taps <= 4 ? 3 : 2;

/// Sums for the parameters are stored as those of convolution_backward_kernel.
template <class C, class S, int Taps, SequenceKind kind>
__global__ void __launch_bounds__(warp_size* most_pair_warps, pairs_backward_blocks<Taps>)
    convolution_pairs_backward_kernel(const __grid_constant__ CausalConvolutionBackward<C, S, Taps> convolution,
                                      const __grid_constant__ PairChunks chunks, float* parts) {
  __shared__ ChannelPair sums[most_pair_warps][Taps + 1][warp_size];
  const Index channels = convolution.x.columns, channel = PairGrid::channel();
  const int warp = PairGrid::warp(), lane = PairGrid::lane();
  PairsBackward<C, S, Taps> backward(convolution, channel, channel < channels);
  if (channel < channels) {
    if constexpr (kind == SequenceKind::packed) {
      const SequenceBlock of = chunks.sequences.at<kind>(PairGrid::block());
      const ConvolutionSequence& sequence = chunks.sequences.packed[of.sequence];
      const int steps = static_cast<int>(sequence.steps);
      const unsigned total = static_cast<unsigned>(ceiling_divide<Index>(of.length, steps));
      const unsigned first = (of.block * most_pair_warps + warp) * sequence.span;
      const unsigned end = min(first + sequence.span, total);
      for (unsigned index = first; index < end; ++index) backward.run(of, Index{index} * steps, steps);
    } else {
      const unsigned first = chunks.first(PairGrid::block()), end = min(first + chunks.span, chunks.total);
      for (unsigned index = first; index < end; ++index) {
        const SequenceBlock of = chunks.sequences.at<kind>(index);
        backward.run(of, Index{of.block} * chunks.steps, chunks.steps);
      }
    }
  }
#pragma unroll
  for (int k = 0; k < Taps; ++k) sums[warp][k][lane] = backward.dweight[k];
  sums[warp][Taps][lane] = backward.dbias;
  __syncthreads();
  // The warps' sums, in order.
  const Index first_channel = Index{blockIdx.x} * pair_width;
  for (int i = static_cast<int>(threadIdx.x); i < (Taps + 1) * pair_width; i += static_cast<int>(blockDim.x)) {
    const int k = i / pair_width, c = i % pair_width;
    if (first_channel + c >= channels) continue;
    float sum = 0.0f;
#pragma unroll
    for (int other = 0; other < most_pair_warps; ++other) sum += sums[other][k][c / 2].values[c % 2];
    if (parts != nullptr) {
      parts[(Index{PairGrid::block()} * (Taps + 1) + k) * channels + first_channel + c] = sum;
    } else if (k < Taps) {
      convolution.dweight[(first_channel + c) * Taps + k] += sum;
    } else if (convolution.dbias != nullptr) {
      convolution.dbias[first_channel + c] += sum;
    }
  }
}

/// How sequences are divided: steps per chunk, and chunks per warp.
struct PairCut {
  Index steps = 0, span = 0;
};

/// Minimises the work of the busiest warp, with at most `room` blocks of the same channels; each chunk costs K - 1
/// additional steps.
template <int Taps>
PairCut pairs_backward_cut(const Device& device, Index columns, Index room, Index batch, Index length) {
  const Index held = pairs_backward_blocks<Taps> * device.processors() / PairGrid::groups(columns);
  const Index warps = std::clamp<Index>(room, 1, std::max<Index>(1, held)) * most_pair_warps;
  const Index least = ceiling_divide(batch, warps);
  PairCut best;
  for (Index span = least; span < least + 4; ++span) {
    const Index whole = ceiling_divide(length, span * warps / batch);
    const Index steps = std::max<Index>(2, ceiling_divide<Index>(whole, pair_batch)) * pair_batch;
    if (best.span == 0 || span * (steps + Taps - 1) < best.span * (best.steps + Taps - 1)) best = {steps, span};
  }
  return best;
}

/// As cut_convolution_backward.
template <int Taps>
Index cut_convolution_pairs_backward(const Device& device, Index columns, Index room, ConvolutionSequence& sequence) {
  const PairCut cut = pairs_backward_cut<Taps>(device, columns, room, 1, sequence.length);
  sequence.steps = static_cast<unsigned>(cut.steps);
  sequence.span = static_cast<unsigned>(cut.span);
  return ceiling_divide(ceiling_divide(sequence.length, cut.steps), cut.span * most_pair_warps);
}

/// As launch_convolution_backward.
template <class C, class S, int Taps>
Index launch_convolution_pairs_backward(Device& device, const CausalConvolutionBackward<C, S, Taps>& convolution,
                                        const LaunchSequences<ConvolutionSequence>& sequences, Index blocks, Index room,
                                        float* parts) {
  const Shape& shape = convolution.shape;
  const Index columns = convolution.x.columns;
  PairCut cut{pair_batch, 1};
  if (sequences.packed == nullptr) cut = pairs_backward_cut<Taps>(device, columns, room, shape.batch, shape.length);
  PairChunks chunks(shape, cut.steps, cut.span, most_pair_warps);
  if (sequences.packed == nullptr) {
    blocks = chunks.blocks();
    if (blocks == 1) parts = nullptr;
  } else {
    chunks.sequences = sequences;
  }
  sequences.with_kind([&](auto kind) {
    convolution_pairs_backward_kernel<C, S, Taps, decltype(kind)::value>
        <<<PairGrid::of(columns, blocks), static_cast<unsigned>(warp_size * most_pair_warps), 0, device.stream()>>>(
            convolution, chunks, parts);
  });
  return blocks;
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
