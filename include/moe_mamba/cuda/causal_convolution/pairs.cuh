#pragma once

#include <algorithm>
#include <type_traits>

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cuda/causal_convolution/sequence.hpp"
#include "moe_mamba/cuda/common/row_cursor.cuh"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/ops/causal_convolution.hpp"

/// The convolution of bfloat16 activations whose rows can be read in pairs of channels. With half the bytes of float
/// per element the kernel is bound by instructions rather than bandwidth, so it minimises them: a lane takes two
/// neighbouring channels, loads and stores them as one word, and walks along their steps with the last inputs in
/// registers. Shared memory is not used; the K - 1 rows before a warp's chunk are read a second time, from the cache.
/// Sums are in the order of convolution_kernel, so they have the same bits.
namespace moe_mamba::inline v0_2::cuda::detail {

inline constexpr int pair_width = 2 * warp_size;  // channels per warp
inline constexpr int most_pair_warps = 8;
inline constexpr int pair_batch = 8;  // steps whose rows are loaded at a time
/// More taps would not leave registers for enough warps. K - 1 is at most a batch, so only the first chunk of a
/// sequence reads the state.
inline constexpr int most_pair_taps = 8;

/// Whether there are kernels for this type and number of taps; double and float keep one channel per lane.
template <class C, int Taps>
inline constexpr bool has_convolution_pairs = Taps <= most_pair_taps&& std::is_same_v<C, bfloat16>;

using ChannelPair = Vector<float, 2>;

/// The grid over groups of channels and blocks of chunks.
struct PairGrid {
  static Index groups(Index channels) { return ceiling_divide<Index>(channels, pair_width); }

  static dim3 of(Index channels, Index blocks) {
    constexpr Index most_rows = 65535;  // the limit of a grid's y dimension
    return dim3(static_cast<unsigned>(groups(channels)), static_cast<unsigned>(std::min(blocks, most_rows)),
                static_cast<unsigned>(ceiling_divide(blocks, most_rows)));
  }

  static __device__ __forceinline__ unsigned block() { return blockIdx.z * gridDim.y + blockIdx.y; }
  static __device__ __forceinline__ int lane() { return lane_index(); }
  static __device__ __forceinline__ int warp() { return warp_index(); }
  /// The first channel of a lane.
  static __device__ __forceinline__ Index channel() { return Index{blockIdx.x} * pair_width + 2 * lane(); }
};

/// How sequences are divided into chunks, of which a warp processes `span` in turn.
struct PairChunks {
  LaunchSequences<ConvolutionSequence> sequences;  // numbered by chunks; by blocks if packed, in the backward pass
  int steps;                                       // per chunk: whole batches
  unsigned total, span;                            // chunks of all sequences, and chunks per warp
  int warps;                                       // per block

  /// For packed sequences without their table, which the caller assigns to `sequences`.
  PairChunks(const Shape& shape, Index steps_of_chunk, Index chunks_of_warp, int warps_of_block)
      : sequences{.length = shape.length,
                  .blocks = static_cast<unsigned>(convolution_chunks(shape.length, steps_of_chunk))},
        steps(static_cast<int>(steps_of_chunk)),
        total(static_cast<unsigned>(convolution_chunks(shape, steps_of_chunk))),
        span(static_cast<unsigned>(chunks_of_warp)),
        warps(warps_of_block) {}

  Index blocks() const { return ceiling_divide<Index>(total, Index{span} * warps); }
  /// The first chunk of a warp of a block.
  __device__ __forceinline__ unsigned first(unsigned block) const { return (block * warps + PairGrid::warp()) * span; }
};

template <int Taps>
struct PairWeights {
  ChannelPair bias = {}, taps[Taps];

  template <class S>
  __device__ __forceinline__ PairWeights(const S* weight, const S* from_bias, Index channel, bool inside) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
#pragma unroll
      for (int k = 0; k < Taps; ++k) {
        taps[k].values[c] = inside ? static_cast<float>(weight[(channel + c) * Taps + k]) : 0.0f;
      }
      if (inside && from_bias != nullptr) bias.values[c] = static_cast<float>(from_bias[channel + c]);
    }
  }

  /// bias + Σ_k weight[k] inputs[k]
  __device__ __forceinline__ ChannelPair convolve(const ChannelPair* inputs) const {
    ChannelPair sum = bias;
#pragma unroll
    for (int k = 0; k < Taps; ++k) {
#pragma unroll
      for (int c = 0; c < 2; ++c) sum.values[c] = fma(taps[k].values[c], inputs[k].values[c], sum.values[c]);
    }
    return sum;
  }
};

/// Loads the next `Rows` rows of a cursor and advances it. Rows from `present` on do not exist and read as zero.
template <int Rows, bool Whole, class C>
__device__ __forceinline__ void load_pairs(RowCursor<const C, 1>& from, int present, Packed<C, 2>* to) {
#pragma unroll
  for (int i = 0; i < Rows; ++i) {
    to[i] = {};
    from.template load<true>(to[i], Whole || i < present ? 2 : 0);
    from.move(1);
  }
}

/// The K - 1 inputs before step `first` of a sequence, from the state if `first` is 0.
template <int Taps, class C>
__device__ __forceinline__ void load_pairs_before(const MatrixView<const C>& x, const float* state, Index row,
                                                  Index first, Index channel, ChannelPair* to) {
  constexpr int around = Taps - 1;
  if constexpr (around > 0) {
    if (first > 0) {
      Packed<C, 2> stored[around];
      RowCursor<const C, 1> from(x, row - around, channel);
      load_pairs<around, true, C>(from, around, stored);
#pragma unroll
      for (int j = 0; j < around; ++j) to[j] = widen(stored[j]);
    } else {
#pragma unroll
      for (int j = 0; j < around; ++j) {
#pragma unroll
        for (int c = 0; c < 2; ++c) to[j].values[c] = state == nullptr ? 0.0f : state[j * x.columns + channel + c];
      }
    }
  }
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
