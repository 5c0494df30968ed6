#pragma once

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cuda/causal_convolution/sequence.hpp"
#include "moe_mamba/ops/causal_convolution.hpp"

/// Shared by the convolution's kernels that stage tiles of steps in shared memory.
namespace moe_mamba::inline v0_2::cuda::detail {

inline constexpr int convolution_width = 32;  // channels per block: one per lane
inline constexpr int convolution_steps = 64;  // per tile; at least K - 1, so only the first tile reads the state
inline constexpr int convolution_warps = 8;

/// The number of groups of channels; a block takes one.
MOE_MAMBA_HOST_DEVICE constexpr Index convolution_groups(Index channels) {
  return ceiling_divide<Index>(channels, convolution_width);
}

/// The indices of a thread.
struct ConvolutionThread {
  int lane, warp;
  Index channel;
  unsigned block;  // among those of the same channels
  bool inside;

  __device__ __forceinline__ ConvolutionThread(Index groups, Index channels)
      : lane(static_cast<int>(threadIdx.x) % convolution_width),
        warp(static_cast<int>(threadIdx.x) / convolution_width),
        channel(blockIdx.x % groups * convolution_width + lane),
        block(static_cast<unsigned>(blockIdx.x / groups)),
        inside(channel < channels) {}
};

/// The tiles of a block in the backward pass: consecutive ones, of a single sequence if sequences are packed.
template <SequenceKind kind>
struct ConvolutionSpan {
  const LaunchSequences<ConvolutionSequence>& sequences;
  SequenceBlock of = {};  // the sequence, if packed
  unsigned begin, end;

  /// Each block takes `span` of the `total` tiles of equally long sequences.
  __device__ __forceinline__ ConvolutionSpan(const LaunchSequences<ConvolutionSequence>& all, unsigned block,
                                             unsigned span, unsigned total)
      : sequences(all) {
    if constexpr (kind == SequenceKind::packed) {
      of = all.at<kind>(block);
      span = all.packed[of.sequence].span;
      total = static_cast<unsigned>(ceiling_divide<Index>(of.length, convolution_steps));
      block = of.block;
    }
    begin = block * span;
    end = min(begin + span, total);
  }

  /// The sequence of a tile, and the tile's number in it.
  __device__ __forceinline__ SequenceBlock tile(unsigned index) const {
    if constexpr (kind == SequenceKind::packed) return {of.sequence, of.row, of.length, index};
    return sequences.at<kind>(index);
  }
};

template <class T, class S, int Taps>
struct ConvolutionWeights {
  T bias = T(0), taps[Taps];

  __device__ __forceinline__ ConvolutionWeights(const S* weight, const S* from_bias, Index channel, bool inside) {
#pragma unroll
    for (int k = 0; k < Taps; ++k) taps[k] = inside ? static_cast<T>(weight[channel * Taps + k]) : T(0);
    if (inside && from_bias != nullptr) bias = static_cast<T>(from_bias[channel]);
  }

  /// bias + Σ_k weight[k] inputs[k][lane]
  __device__ __forceinline__ T convolve(const T (*inputs)[convolution_width], int lane) const {
    T sum = bias;
#pragma unroll
    for (int k = 0; k < Taps; ++k) sum = fma(taps[k], inputs[k][lane], sum);
    return sum;
  }
};

/// Stages `count` inputs of a sequence from step `first`, at row `row`, on into the rows of `inputs`.
template <int Taps, int Warps, int AtMost, class C>
__device__ __forceinline__ void stage_convolution_inputs(const MatrixView<const C>& x, const compute_t<C>* state,
                                                         Index row, Index first, int count,
                                                         const ConvolutionThread& thread,
                                                         compute_t<C> (*inputs)[convolution_width]) {
  if (!thread.inside) count = 0;
  const int missing = first < 0 ? static_cast<int>(-first) : 0;  // inputs before the sequence
  constexpr int rows = ceiling_divide(AtMost, Warps);
  C values[rows];  // all loaded before the first use
  const C* at = x.data + (row + thread.warp) * x.stride + thread.channel;
#pragma unroll
  for (int i = 0; i < rows; ++i) {
    const int j = thread.warp + i * Warps;
    values[i] = j >= missing && j < count ? *at : C{};
    at += Warps * x.stride;
  }
#pragma unroll
  for (int i = 0; i < rows; ++i) {
    const int j = thread.warp + i * Warps;
    if (j < count) inputs[j][thread.lane] = static_cast<compute_t<C>>(values[i]);
  }
  if (state == nullptr) return;
  for (int j = thread.warp; j < min(missing, count); j += Warps) {
    inputs[j][thread.lane] = state[(first + j + Taps - 1) * x.columns + thread.channel];
  }
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
