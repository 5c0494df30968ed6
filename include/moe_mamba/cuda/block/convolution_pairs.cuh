#pragma once

#include <algorithm>
#include <type_traits>

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cuda/block/scan_mathematics.cuh"
#include "moe_mamba/cuda/block/scan_rows.cuh"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/cuda/warp.hpp"
#include "moe_mamba/ops/causal_convolution.hpp"

/// The convolution of activations in bfloat16, where rows can be read in pairs of channels. At half the bytes of float a
/// kernel has half the time for each element and is bound by instructions, so these are as few as can be: a lane takes two
/// neighbouring channels, which it loads and stores at once, and goes along their steps with the last inputs in registers.
/// Nothing goes through shared memory, and what lies between the rows of two warps is read twice, the second time from the
/// cache. Sums have the order that convolution_kernel has, and so the same bits.
namespace moe_mamba::cuda::detail {

inline constexpr int pair_width = 2 * warp_size;  // channels of a warp
inline constexpr int most_pair_warps = 8;
inline constexpr int pair_chunk = 8;  // steps whose rows are asked for at once
/// More would not leave registers for enough warps. K - 1 is no more than a chunk, so that only the first piece of a
/// sequence reads the state.
inline constexpr int most_pair_taps = 8;

/// Whether there are kernels for such activations; double and float keep one channel a lane.
template <class C, int Taps>
inline constexpr bool has_convolution_pairs = Taps <= most_pair_taps&& std::is_same_v<C, bfloat16>;

using ChannelPair = ScanValues<float, 2>;

/// Pieces of sequences, a warp each at a time, and the grid over groups of channels and blocks of pieces.
struct PairPieces {
  int steps;                          // of a piece: whole chunks
  unsigned of_sequence, total, span;  // span: those that a warp takes, one after the other
  int warps;                          // of a block

  /// An empty sequence has a piece too: its state is saved.
  PairPieces(Shape shape, Index steps_of_piece, Index pieces_of_warp, int warps_of_block)
      : steps(static_cast<int>(steps_of_piece)),
        of_sequence(static_cast<unsigned>(ceiling_divide(std::max<Index>(1, shape.length), steps_of_piece))),
        total(static_cast<unsigned>(shape.batch) * of_sequence),
        span(static_cast<unsigned>(pieces_of_warp)),
        warps(warps_of_block) {}

  Index blocks() const { return ceiling_divide<Index>(total, Index{span} * warps); }

  static Index groups(Index channels) { return ceiling_divide<Index>(channels, pair_width); }

  dim3 grid(Index channels) const {
    constexpr Index most_rows = 65535;  // of a grid
    return dim3(static_cast<unsigned>(groups(channels)), static_cast<unsigned>(std::min(blocks(), most_rows)),
                static_cast<unsigned>(ceiling_divide(blocks(), most_rows)));
  }

  static __device__ __forceinline__ unsigned block() { return blockIdx.z * gridDim.y + blockIdx.y; }
  static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x % warp_size); }
  static __device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x / warp_size); }
  /// The first channel of a lane.
  static __device__ __forceinline__ Index channel() { return Index{blockIdx.x} * pair_width + 2 * lane(); }
  /// The first piece of a warp.
  __device__ __forceinline__ unsigned first() const { return (block() * warps + warp()) * span; }
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
        taps[k].of[c] = inside ? static_cast<float>(weight[(channel + c) * Taps + k]) : 0.0f;
      }
      if (inside && from_bias != nullptr) bias.of[c] = static_cast<float>(from_bias[channel + c]);
    }
  }

  /// bias + Σ_k weight[k] inputs[k]
  __device__ __forceinline__ ChannelPair convolve(const ChannelPair* inputs) const {
    ChannelPair sum = bias;
#pragma unroll
    for (int k = 0; k < Taps; ++k) {
#pragma unroll
      for (int c = 0; c < 2; ++c) sum.of[c] = fma(taps[k].of[c], inputs[k].of[c], sum.of[c]);
    }
    return sum;
  }
};

/// Loads `Rows` rows in front of which a cursor stands, and moves it behind them. Those from `present` on are not there.
template <int Rows, bool Whole, class C>
__device__ __forceinline__ void load_pairs(RowCursor<const C, 1>& from, int present, StoredValues<C, 2>* to) {
#pragma unroll
  for (int i = 0; i < Rows; ++i) {
    to[i] = {};
    from.template load<true>(to[i], Whole || i < present ? 2 : 0);
    from.move(1);
  }
}

/// The K - 1 inputs before step `first` of a sequence, from the state where that is 0.
template <int Taps, class C>
__device__ __forceinline__ void load_pairs_before(const MatrixView<const C>& x, const float* state, Index row,
                                                  Index first, Index channel, ChannelPair* to) {
  constexpr int around = Taps - 1;
  if constexpr (around > 0) {
    if (first > 0) {
      StoredValues<C, 2> stored[around];
      RowCursor<const C, 1> from(x, row - around, channel);
      load_pairs<around, true, C>(from, around, stored);
#pragma unroll
      for (int j = 0; j < around; ++j) to[j] = widened(stored[j]);
    } else {
#pragma unroll
      for (int j = 0; j < around; ++j) {
#pragma unroll
        for (int c = 0; c < 2; ++c) to[j].of[c] = state == nullptr ? 0.0f : state[j * x.columns + channel + c];
      }
    }
  }
}

/// Blocks on the way forward that a multiprocessor holds, at least.
template <int Taps>
inline constexpr int pairs_forward_blocks = Taps <= 4 ? 5 : 3;

/// A warp takes a piece. That with the first steps of a sequence is the only one to read the running state, and writes it.
template <class C, class S, int Taps>
__global__ void __launch_bounds__(warp_size* most_pair_warps, pairs_forward_blocks<Taps>)
    convolution_pairs_kernel(const __grid_constant__ CausalConvolution<C, S, Taps> convolution,
                             const __grid_constant__ PairPieces pieces) {
  constexpr int around = Taps - 1;
  const Index channels = convolution.x.columns, length = convolution.shape.length, channel = pieces.channel();
  const unsigned piece = pieces.first();
  if (piece >= pieces.total || channel >= channels) return;
  const unsigned sequence = piece / pieces.of_sequence;
  const Index first = Index{piece - sequence * pieces.of_sequence} * pieces.steps, row = sequence * length + first;
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
      for (int c = 0; c < 2; ++c) saved[j * channels + c] = before[j].of[c];
    }
  }
  RowCursor<const C, 1> from(convolution.x, row, channel);
  RowCursor<C, 1> to(convolution.y, row, channel);
  const auto convolve = [&](auto all_there, int present) {
    constexpr bool whole = decltype(all_there)::value;
    StoredValues<C, 2> stored[pair_chunk];
    load_pairs<pair_chunk, whole, C>(from, present, stored);
    ChannelPair inputs[around + pair_chunk];
#pragma unroll
    for (int j = 0; j < around; ++j) inputs[j] = before[j];
#pragma unroll
    for (int t = 0; t < pair_chunk; ++t) {
      inputs[around + t] = widened(stored[t]);
      ChannelPair y = weights.convolve(inputs + t);
#pragma unroll
      for (int c = 0; c < 2; ++c) y.of[c] = silu_of<bfloat16>(y.of[c]);
      to.template store<true>(narrowed<C, 2>(y), whole || t < present ? 2 : 0);
      to.move(1);
    }
#pragma unroll
    for (int j = 0; j < around; ++j) before[j] = inputs[pair_chunk + j];
  };
  for (int left = static_cast<int>(min(Index{pieces.steps}, length - first)); left > 0; left -= pair_chunk) {
    if (left >= pair_chunk) {
      convolve(std::true_type{}, pair_chunk);
    } else {
      convolve(std::false_type{}, left);
    }
  }
  if (first > 0 || state == nullptr) return;
#pragma unroll
  for (int j = 0; j < around; ++j) {
    // What a short sequence leaves of the state moves to the front; it has not been written over yet.
    const Index step = length - around + j;
    const C* const input = convolution.x.data + (sequence * length + step) * convolution.x.stride + channel;
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      state[j * channels + channel + c] =
          step < 0 ? state[(length + j) * channels + channel + c] : static_cast<float>(input[c]);
    }
  }
}

/// A warp's way back along a piece of a sequence. dx of a step needs ds of that step and of the K - 1 after it, so it comes
/// K - 1 steps after ds, and a piece adds those ds to the gradients of the parameters that lie K - 1 after its steps.
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

  struct Piece {
    RowCursor<const C, 1> x, dy;
    RowCursor<C, 1> dx;
    const float* dstate;                 // of the sequence's final state
    ChannelPair inputs[Taps], ds[Taps];  // the last K - 1
    int left;  // steps of the sequence that this one comes to; below 0 behind the sequence's end
  };

  /// The next `Rows` steps. Where Whole, all of them are there. With Opening, dx does not come yet.
  template <int Rows, bool Whole, bool Opening>
  __device__ __forceinline__ void advance(Piece& piece, bool counted) {
    StoredValues<C, 2> x[Rows], dy[Rows];
    load_pairs<Rows, Whole, C>(piece.x, piece.left, x);
    load_pairs<Rows, Whole, C>(piece.dy, piece.left, dy);
    ChannelPair inputs[around + Rows], ds[around + Rows];
#pragma unroll
    for (int j = 0; j < around; ++j) {
      inputs[j] = piece.inputs[j];
      ds[j] = piece.ds[j];
    }
#pragma unroll
    for (int i = 0; i < Rows; ++i) {
      inputs[around + i] = widened(x[i]);
      const ChannelPair sum = weights.convolve(inputs + i), slope = widened(dy[i]);
      ChannelPair& next = ds[around + i];
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        next.of[c] = Whole || i < piece.left ? slope.of[c] * silu_and_slope_of<bfloat16>(sum.of[c]).slope : 0.0f;
      }
      if (!Opening || counted) add(next, inputs + i);
      if constexpr (!Opening) {
        ChannelPair dx = {};
#pragma unroll
        for (int k = 0; k < Taps; ++k) {
#pragma unroll
          for (int c = 0; c < 2; ++c) dx.of[c] = fma(weights.taps[around - k].of[c], ds[i + k].of[c], dx.of[c]);
        }
        const bool there = Whole || i - around < piece.left;
        if (!Whole && i >= piece.left && there && piece.dstate != nullptr) {
          // Step i is as many steps behind the sequence's end as the input it gives back is within the final state.
#pragma unroll
          for (int c = 0; c < 2; ++c) {
            dx.of[c] += piece.dstate[Index{i - piece.left} * convolution.x.columns + channel + c];
          }
        }
        piece.dx.template store<true>(narrowed<C, 2>(dx), there ? 2 : 0);
        piece.dx.move(1);
      }
    }
#pragma unroll
    for (int j = 0; j < around; ++j) {
      piece.inputs[j] = inputs[Rows + j];
      piece.ds[j] = ds[Rows + j];
    }
    piece.left -= Rows;
  }

  __device__ __forceinline__ void add(const ChannelPair& ds, const ChannelPair* inputs) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
#pragma unroll
      for (int k = 0; k < Taps; ++k) dweight[k].of[c] = fma(ds.of[c], inputs[k].of[c], dweight[k].of[c]);
      dbias.of[c] += ds.of[c];
    }
  }

  /// `steps` steps of a sequence from `first` on, in whole chunks, or those until its end.
  __device__ __forceinline__ void run(Index sequence, Index first, int steps) {
    const Index length = convolution.shape.length, row = sequence * length + first;
    Piece piece{
        {convolution.x, row, channel},
        {convolution.dy, row, channel},
        {convolution.dx, row, channel},
        convolution.dstate.data == nullptr ? nullptr : convolution.dstate.data + sequence * convolution.dstate.stride,
        {},
        {},
        static_cast<int>(min(Index{steps + around}, length - first))};
    load_pairs_before<Taps, C>(convolution.x, convolution.saved_state + sequence * around * convolution.x.columns, row,
                               first, channel, piece.inputs);
    if constexpr (around > 0) {
      if (piece.left >= around) {
        advance<around, true, true>(piece, first == 0);
      } else {
        advance<around, false, true>(piece, first == 0);
      }
    }
    for (int done = 0; done < steps && piece.left > -around; done += pair_chunk) {
      if (piece.left >= pair_chunk) {
        advance<pair_chunk, true, false>(piece, true);
      } else {
        advance<pair_chunk, false, false>(piece, true);
      }
    }
  }
};

/// Blocks on the way back that a multiprocessor holds, at least.
template <int Taps>
inline constexpr int pairs_backward_blocks = Taps <= 4 ? 3 : 2;

/// Sums for the parameters go where those of convolution_backward_kernel go.
template <class C, class S, int Taps>
__global__ void __launch_bounds__(warp_size* most_pair_warps, pairs_backward_blocks<Taps>)
    convolution_pairs_backward_kernel(const __grid_constant__ CausalConvolutionBackward<C, S, Taps> convolution,
                                      const __grid_constant__ PairPieces pieces, float* parts) {
  __shared__ ChannelPair sums[most_pair_warps][Taps + 1][warp_size];
  const Index channels = convolution.x.columns, channel = pieces.channel();
  PairsBackward<C, S, Taps> backward(convolution, channel, channel < channels);
  if (channel < channels) {
    const unsigned end = min(pieces.first() + pieces.span, pieces.total);
    for (unsigned index = pieces.first(); index < end; ++index) {
      const unsigned sequence = index / pieces.of_sequence;
      backward.run(sequence, Index{index - sequence * pieces.of_sequence} * pieces.steps, pieces.steps);
    }
  }
#pragma unroll
  for (int k = 0; k < Taps; ++k) sums[pieces.warp()][k][pieces.lane()] = backward.dweight[k];
  sums[pieces.warp()][Taps][pieces.lane()] = backward.dbias;
  __syncthreads();
  // What the warps found, one after the other.
  const Index first_channel = Index{blockIdx.x} * pair_width;
  for (int i = static_cast<int>(threadIdx.x); i < (Taps + 1) * pair_width; i += static_cast<int>(blockDim.x)) {
    const int k = i / pair_width, c = i % pair_width;
    if (first_channel + c >= channels) continue;
    float sum = 0.0f;
#pragma unroll
    for (int warp = 0; warp < most_pair_warps; ++warp) sum += sums[warp][k][c / 2].of[c % 2];
    if (parts != nullptr) {
      parts[(Index{pieces.block()} * (Taps + 1) + k) * channels + first_channel + c] = sum;
    } else if (k < Taps) {
      convolution.dweight[(first_channel + c) * Taps + k] += sum;
    } else if (convolution.dbias != nullptr) {
      convolution.dbias[first_channel + c] += sum;
    }
  }
}

template <class C, class S, int Taps>
void launch_convolution_pairs(Device& device, const CausalConvolution<C, S, Taps>& convolution) {
  const Index columns = convolution.x.columns;
  // Long pieces ask for weights less often; but short ones, and small blocks, where multiprocessors would have little to do.
  PairPieces pieces(convolution.shape, 4 * pair_chunk, 1, most_pair_warps);
  const auto few = [&](int blocks) { return pieces.blocks() * pieces.groups(columns) < blocks * device.processors(); };
  for (int chunks = 2; chunks > 0 && few(3); chunks /= 2) {
    pieces = PairPieces(convolution.shape, chunks * pair_chunk, 1, most_pair_warps);
  }
  if (few(1)) pieces.warps = 1;
  convolution_pairs_kernel<C, S, Taps>
      <<<pieces.grid(columns), static_cast<unsigned>(warp_size * pieces.warps), 0, device.stream()>>>(convolution,
                                                                                                      pieces);
}

/// Launches the way back with at most `room` blocks of the same channels, and returns their number. Where there are several
/// their sums go to `parts`.
template <class C, class S, int Taps>
Index launch_convolution_pairs_backward(Device& device, const CausalConvolutionBackward<C, S, Taps>& convolution,
                                        Index room, float* parts) {
  const Index batch = convolution.shape.batch, length = convolution.shape.length, columns = convolution.x.columns;
  const Index held = pairs_backward_blocks<Taps> * device.processors() / PairPieces::groups(columns);
  const Index warps = std::clamp<Index>(room, 1, std::max<Index>(1, held)) * most_pair_warps;
  // A warp takes as little as leaves none without work; each piece costs it K - 1 steps more.
  Index steps = 0, span = 0;
  const Index least = ceiling_divide(batch, warps);
  for (Index candidate = least; candidate < least + 4; ++candidate) {
    const Index whole = ceiling_divide(length, candidate * warps / batch);
    const Index rounded = std::max<Index>(2, ceiling_divide<Index>(whole, pair_chunk)) * pair_chunk;
    if (span == 0 || candidate * (rounded + Taps - 1) < span * (steps + Taps - 1)) {
      span = candidate;
      steps = rounded;
    }
  }
  const PairPieces pieces(convolution.shape, steps, span, most_pair_warps);
  const Index blocks = pieces.blocks();
  convolution_pairs_backward_kernel<C, S, Taps>
      <<<pieces.grid(columns), static_cast<unsigned>(warp_size * most_pair_warps), 0, device.stream()>>>(
          convolution, pieces, blocks == 1 ? nullptr : parts);
  return blocks;
}

}  // namespace moe_mamba::cuda::detail
