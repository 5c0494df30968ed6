#pragma once

#include <type_traits>

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/ops/causal_convolution.hpp"

/// What the kernels of the convolution share that stage tiles of steps in shared memory.
namespace moe_mamba::inline v0_2::cuda::detail {

inline constexpr int convolution_width = 32;  // channels of a block: the lanes of a warp
inline constexpr int convolution_steps = 64;  // of a tile; K - 1 at least, so that only the first reads the state
inline constexpr int convolution_warps = 8;

/// Calls launch(warps) with the warps of a block: one where sequences are too short for more.
template <class Launch>
void with_convolution_warps(Index length, const Launch& launch) {
  if (length < convolution_warps) {
    launch(std::integral_constant<int, 1>{});
  } else {
    launch(std::integral_constant<int, convolution_warps>{});
  }
}

/// Channels and tiles of all sequences.
struct ConvolutionTiles {
  Index groups;  // of channels
  Index tiles;   // of a sequence
  Index total;   // tiles of all sequences

  ConvolutionTiles(Shape shape, Index channels)
      : groups(ceiling_divide(channels, convolution_width)),
        tiles(ceiling_divide(shape.length, convolution_steps)),
        total(shape.batch * tiles) {}
};

/// The place of a thread.
struct ConvolutionThread {
  int lane, warp;
  Index channel, block;  // block: among those of the same channels
  bool inside;

  __device__ __forceinline__ ConvolutionThread(Index groups, Index channels)
      : lane(static_cast<int>(threadIdx.x) % convolution_width),
        warp(static_cast<int>(threadIdx.x) / convolution_width),
        channel(blockIdx.x % groups * convolution_width + lane),
        block(blockIdx.x / groups),
        inside(channel < channels) {}
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

/// Stages the `count` inputs of a sequence from step `first` on, in the rows of `inputs`.
template <int Taps, int Warps, int AtMost, class C>
__device__ __forceinline__ void stage_convolution_inputs(const MatrixView<const C>& x, Shape shape,
                                                         const compute_t<C>* state, Index sequence, Index first,
                                                         int count, const ConvolutionThread& thread,
                                                         compute_t<C> (*inputs)[convolution_width]) {
  if (!thread.inside) count = 0;
  const int missing = first < 0 ? static_cast<int>(-first) : 0;  // inputs before the sequence
  constexpr int rows = ceiling_divide(AtMost, Warps);
  C values[rows];  // all loaded before the first is needed
  const C* at = x.data + (sequence * shape.length + first + thread.warp) * x.stride + thread.channel;
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
