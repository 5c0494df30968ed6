#pragma once

#include <algorithm>
#include <cstddef>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/cuda/causal_convolution/pairs.cuh"
#include "moe_mamba/cuda/causal_convolution/pairs_backward.cuh"
#include "moe_mamba/cuda/causal_convolution/tile.cuh"
#include "moe_mamba/cuda/common/launch.cuh"
#include "moe_mamba/cuda/common/mathematics.cuh"
#include "moe_mamba/cuda/common/put_sequences.cuh"
#include "moe_mamba/cuda/common/rounding.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/device.hpp"

/// The short causal convolution on a GPU, backward. With s[t] = bias + Σ_k weight[k] x[t + k - (K - 1)]:
///
///   ds[t] = dy[t] silu'(s[t])                    dx[t] = Σ_k weight[k] ds[t + (K - 1) - k]
///   dweight[k] = Σ_t ds[t] x[t + k - (K - 1)]    dbias = Σ_t ds[t]
///
/// A block processes several tiles of its channels in turn:
///
///   for each tile:
///     stage x of the tile and K - 1 steps around it; load dy; barrier
///     ds of the tile and the K - 1 steps after it → shared memory; barrier
///     dx, and the thread's sums of dweight and dbias
///   add the warps' sums in order; a separate launch adds those of the blocks
namespace moe_mamba::inline v0_2::cuda {

namespace detail {

/// Shared memory of a block, backward. The sums over its warps reuse the memory of the inputs.
template <class T, int Taps>
struct ConvolutionBackwardStorage {
  static constexpr int around = Taps - 1;
  T inputs[convolution_steps + 2 * around][convolution_width];
  T ds[convolution_steps + around][convolution_width];
};

/// A block processes `span` tiles in turn and keeps its own sums for the parameters. They go to `parts` (blocks of the
/// same channels, K + 1, E) or, if that is null (there is only one block), to the gradients.
template <class C, class S, int Taps, SequenceKind kind>
__global__ void __launch_bounds__(convolution_width* convolution_warps)
    convolution_backward_kernel(const __grid_constant__ CausalConvolutionBackward<C, S, Taps> convolution,
                                const __grid_constant__ LaunchSequences<ConvolutionSequence> sequences, unsigned span,
                                unsigned total, compute_t<C>* parts) {
  extern __shared__ __align__(16) unsigned char shared[];
  using T = compute_t<C>;
  using Storage = ConvolutionBackwardStorage<T, Taps>;
  Storage& storage = *reinterpret_cast<Storage*>(shared);
  constexpr int around = Storage::around, warps = convolution_warps;
  const Index channels = convolution.x.columns;
  const ConvolutionThread thread(convolution_groups(channels), channels);
  const ConvolutionWeights<T, S, Taps> weights(convolution.weight, convolution.bias, thread.channel, thread.inside);
  T dweight[Taps] = {}, dbias = T(0);
  const ConvolutionSpan<kind> tiles(sequences, thread.block, span, total);
  for (unsigned index = tiles.begin; index < tiles.end; ++index) {
    const SequenceBlock place = tiles.tile(index);
    const Index sequence = place.sequence, length = place.length;
    const Index first = Index{place.block} * convolution_steps, first_row = place.row + first;  // of the tile
    const int steps = static_cast<int>(min(Index{convolution_steps}, length - first));
    const T* const saved = convolution.saved_state + sequence * around * channels;
    const T* const dstate =
        convolution.dstate.data == nullptr ? nullptr : convolution.dstate.data + sequence * convolution.dstate.stride;
    // The inputs from here on are those of the final state.
    const Index last = length - around - first;
    const int reached = static_cast<int>(min(Index{steps + around}, length - first));  // steps whose ds is needed
    constexpr int rows = ceiling_divide(convolution_steps + around, warps);
    stage_convolution_inputs<Taps, warps, convolution_steps + 2 * around, C>(
        convolution.x, saved, first_row - around, first - around, reached + around, thread, storage.inputs);
    C dy[rows];
    const Index row = first_row + thread.warp;
    const C* dy_at = convolution.dy.data + row * convolution.dy.stride + thread.channel;
    C* dx_at = convolution.dx.data + row * convolution.dx.stride + thread.channel;
#pragma unroll
    for (int i = 0; i < rows; ++i) {
      dy[i] = thread.inside && thread.warp + i * warps < reached ? *dy_at : C{};
      dy_at += warps * convolution.dy.stride;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < rows; ++i) {
      const int t = thread.warp + i * warps;
      if (t >= steps + around) break;
      storage.ds[t][thread.lane] =
          t < reached
              ? static_cast<T>(dy[i]) * silu_and_slope_of<C>(weights.convolve(storage.inputs + t, thread.lane)).slope
              : T(0);
    }
    __syncthreads();
#pragma unroll(Taps > 8 ? 1 : 8)
    for (int i = 0; i < convolution_steps / warps; ++i) {
      const int t = thread.warp + i * warps;
      if (t >= steps || !thread.inside) break;
      const T ds = storage.ds[t][thread.lane];
      T dx = T(0);
#pragma unroll
      for (int k = 0; k < Taps; ++k) {
        dx = fma(weights.taps[Taps - 1 - k], storage.ds[t + k][thread.lane], dx);
        dweight[k] = fma(ds, storage.inputs[t + k][thread.lane], dweight[k]);
      }
      dbias += ds;
      if (dstate != nullptr && t >= last) dx += dstate[(t - last) * channels + thread.channel];
      *dx_at = stored_as<C>(dx);
      dx_at += warps * convolution.dx.stride;
    }
    __syncthreads();
  }
  // The warps add their sums in turn, for a fixed order.
  auto* const sums = reinterpret_cast<T(*)[convolution_width]>(shared);  // (K + 1, lanes)
  for (int warp = 0; warp < warps; ++warp) {
    if (warp == thread.warp) {
#pragma unroll
      for (int k = 0; k < Taps; ++k) sums[k][thread.lane] = warp == 0 ? dweight[k] : sums[k][thread.lane] + dweight[k];
      sums[Taps][thread.lane] = warp == 0 ? dbias : sums[Taps][thread.lane] + dbias;
    }
    __syncthreads();
  }
  if (!thread.inside) return;
  for (int k = thread.warp; k < Taps + 1; k += warps) {
    const T sum = sums[k][thread.lane];
    if (parts != nullptr) {
      parts[(Index{thread.block} * (Taps + 1) + k) * channels + thread.channel] = sum;
    } else if (k < Taps) {
      convolution.dweight[thread.channel * Taps + k] += sum;
    } else if (convolution.dbias != nullptr) {
      convolution.dbias[thread.channel] += sum;
    }
  }
}

/// Tiles per block, of `total`, with at most `room` blocks of the same channels.
inline Index convolution_span(const Device& device, Index channels, Index room, Index total) {
  // As many blocks as fill the device, limited by the room for their sums.
  const Index wanted = ceiling_divide(Index{8} * device.processors(), convolution_groups(channels));
  return ceiling_divide(total, std::clamp(std::min(room, wanted), Index{1}, total));
}

/// Divides a packed sequence of at least one step into tiles and blocks, as if it were a batch of its own. Returns the
/// number of its blocks.
inline Index cut_convolution_backward(const Device& device, Index channels, Index room, ConvolutionSequence& sequence) {
  const Index total = ceiling_divide<Index>(sequence.length, convolution_steps);
  sequence.steps = convolution_steps;
  sequence.span = static_cast<unsigned>(convolution_span(device, channels, room, total));
  return ceiling_divide<Index>(total, sequence.span);
}

/// Launches the backward kernel over packed sequences, which take `blocks` blocks of the same channels, or over equally
/// long ones, with at most `room` blocks. Returns their number. If sequences are packed or there are several blocks,
/// their sums go to `parts`.
template <class C, class S, int Taps>
Index launch_convolution_backward(Device& device, const CausalConvolutionBackward<C, S, Taps>& convolution,
                                  const LaunchSequences<ConvolutionSequence>& sequences, Index blocks, Index room,
                                  compute_t<C>* parts) {
  const Index channels = convolution.x.columns;
  LaunchSequences<ConvolutionSequence> tiles = sequences;
  Index span = 1, total = 0;
  if (sequences.packed == nullptr) {
    tiles.blocks = static_cast<unsigned>(ceiling_divide<Index>(tiles.length, convolution_steps));
    total = convolution.shape.batch * tiles.blocks;
    span = convolution_span(device, channels, room, total);
    blocks = ceiling_divide(total, span);
    if (blocks == 1) parts = nullptr;
  }
  const auto grid = static_cast<unsigned>(blocks * convolution_groups(channels));
  constexpr int shared = sizeof(ConvolutionBackwardStorage<compute_t<C>, Taps>);
  constexpr int threads = convolution_width * convolution_warps;
  sequences.with_kind([&](auto kind) {
    const auto kernel = convolution_backward_kernel<C, S, Taps, decltype(kind)::value>;
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared), "cudaFuncSetAttribute");
    kernel<<<grid, threads, shared, device.stream()>>>(convolution, tiles, static_cast<unsigned>(span),
                                                       static_cast<unsigned>(total), parts);
  });
  return blocks;
}

/// Adds the sums of the `count` blocks of a sequence, or of all equally long ones, to the gradients of the parameters,
/// in order.
template <class T, int Taps>
__global__ void __launch_bounds__(256)
    convolution_parameter_gradients_kernel(const T* parts, LaunchSequences<ConvolutionSequence> sequences, Index count,
                                           Index channels, T* dweight, T* dbias) {
  await_stream();
  const Index index = Index{blockIdx.x} * blockDim.x + threadIdx.x, size = (Taps + 1) * channels;
  if (index >= size) return;
  const Index k = index / channels, channel = index - k * channels;
  if (k == Taps && dbias == nullptr) return;
  T* const to = k < Taps ? dweight + channel * Taps + k : dbias + channel;
  T total = *to;
  sequences.each_run_of_blocks(count, [&](Index begin, Index end) {
    constexpr int at_once = 8;
    T sum = T(0);
    for (Index part = begin; part < end; part += at_once) {
      T values[at_once];  // all loaded before the first use
#pragma unroll
      for (int i = 0; i < at_once; ++i) values[i] = part + i < end ? parts[(part + i) * size + index] : T(0);
#pragma unroll
      for (int i = 0; i < at_once; ++i) sum += values[i];
    }
    total += sum;
  });
  *to = total;
}

/// Input `step` of the sequence that begins at `row`; inputs before 0 are its initial state.
template <int Taps, class C>
__device__ __forceinline__ compute_t<C> convolution_input(const MatrixView<const C>& x, const compute_t<C>* state,
                                                          Index row, Index step, Index channel) {
  if (step >= 0) return static_cast<compute_t<C>>(x.data[(row + step) * x.stride + channel]);
  return state[(step + Taps - 1) * x.columns + channel];
}

/// The gradient with respect to the initial state. It replaces that of the final state, so it runs after all kernels
/// that read the latter. One thread per channel of a sequence.
template <class C, class S, int Taps>
__global__ void __launch_bounds__(128)
    convolution_state_gradient_kernel(const __grid_constant__ CausalConvolutionBackward<C, S, Taps> convolution,
                                      LaunchSequences<ConvolutionSequence> sequences) {
  using T = compute_t<C>;
  const Index channels = convolution.x.columns;
  const Index index = Index{blockIdx.x} * blockDim.x + threadIdx.x;
  const Index sequence = index / channels, channel = index - sequence * channels;
  if (sequence >= convolution.shape.batch) return;
  const Index row = sequences.row_of<SequenceKind::either>(sequence),
              length = sequences.length_of<SequenceKind::either>(sequence);
  if (length == 0) return;
  const S* const weight = convolution.weight + channel * Taps;
  const T* const saved = convolution.saved_state + sequence * (Taps - 1) * channels;
  T* const dstate = convolution.dstate.data + sequence * convolution.dstate.stride + channel;
  const auto ds = [&](Index t) {
    T sum = convolution.bias == nullptr ? T(0) : static_cast<T>(convolution.bias[channel]);
    for (int k = 0; k < Taps; ++k) {
      sum = fma(static_cast<T>(weight[k]),
                convolution_input<Taps, C>(convolution.x, saved, row, t + k - (Taps - 1), channel), sum);
    }
    return static_cast<T>(convolution.dy.data[(row + t) * convolution.dy.stride + channel]) *
           silu_and_slope_of<C>(sum).slope;
  };
  // From the last, as an element is computed in place from the old value of an earlier one.
  for (int j = Taps - 2; j >= 0; --j) {
    T sum = T(0);
    for (int k = 0; k <= j; ++k) {
      if (j - k < length) sum = fma(static_cast<T>(weight[k]), ds(j - k), sum);
    }
    if (j >= length) sum += dstate[(j - length) * channels];
    dstate[j * channels] = sum;
  }
}

/// The backward pass of equally long sequences, or of as many packed ones as fit in a table and in `parts`.
/// cut(sequence) divides a packed one; `paired`: whether by pairs of channels.
template <class C, class S, int Taps, class Cut>
void differentiate_convolution(Device& device, const CausalConvolutionBackward<C, S, Taps>& convolution, Index room,
                               bool paired, const Cut& cut) {
  using T = compute_t<C>;
  const Index channels = convolution.x.columns;
  const Shape& shape = convolution.shape;
  if (shape.tokens() == 0) return;
  Arena arena(device.scratch());
  LaunchSequences<ConvolutionSequence> sequences{.length = shape.length};
  Index blocks = 0;  // of the same channels
  if (shape.lengths != nullptr) {
    const SequenceTable<ConvolutionSequence> table(shape, cut);
    sequences = put_sequences(device, table, arena);
    blocks = table.blocks;
  }
  T* const parts = arena.take<T>(0);
  if constexpr (has_convolution_pairs<C, Taps>) {
    if (paired) blocks = launch_convolution_pairs_backward(device, convolution, sequences, blocks, room, parts);
  }
  if (!paired) blocks = launch_convolution_backward(device, convolution, sequences, blocks, room, parts);
  if (blocks > 1 || shape.lengths != nullptr) {
    const auto grid = static_cast<unsigned>(ceiling_divide(channels * (Taps + 1), 256));
    launch_dependent(device, convolution_parameter_gradients_kernel<T, Taps>, grid, 256, 0, parts, sequences, blocks,
                     channels, convolution.dweight, convolution.dbias);
  }
  if (convolution.dstate.data != nullptr && Taps > 1) {
    const auto grid = static_cast<unsigned>(ceiling_divide(shape.batch * channels, 128));
    convolution_state_gradient_kernel<C, S, Taps><<<grid, 128, 0, device.stream()>>>(convolution, sequences);
  }
  check_launch("causal_convolution_backward");
}

}  // namespace detail

/// See ops/causal_convolution.hpp. Neither allocates nor synchronises; results are bitwise reproducible. Packed
/// sequences take four launches per 120 or so of them. Throws Error if a kernel cannot be launched.
template <class C, class S, int Taps>
void causal_convolution_backward(Device& device, const CausalConvolutionBackward<C, S, Taps>& convolution) {
  static_assert(Taps >= 1 && Taps <= detail::convolution_steps + 1,
                "causal_convolution: Convolution must be from 1 to 65 on a GPU");
  using T = compute_t<C>;
  using Table = detail::SequenceTable<detail::ConvolutionSequence>;
  const Index channels = convolution.x.columns;
  if (channels == 0) return;
  const Index row_size = channels * (Taps + 1);  // of a block's sums
  const Index room = static_cast<Index>(Device::scratch_bytes / sizeof(T)) / row_size;
  const std::size_t beside_table = Device::scratch_bytes - detail::table_bytes<detail::ConvolutionSequence>;
  const Index room_beside_table = static_cast<Index>(beside_table / sizeof(T)) / row_size;
  bool paired = false;
  if constexpr (detail::has_convolution_pairs<C, Taps>) {
    paired = detail::can_vectorise<2>(convolution.x, convolution.dy, convolution.dx);
  }
  const auto cut = [&](detail::ConvolutionSequence& sequence) {
    if (sequence.length == 0) return Index{0};
    if (paired) return detail::cut_convolution_pairs_backward<Taps>(device, channels, room, sequence);
    return detail::cut_convolution_backward(device, channels, room, sequence);
  };
  detail::for_sequence_groups(
      convolution.shape, Table::most,
      [&](Index length) {
        detail::ConvolutionSequence sequence{.length = length};
        return cut(sequence);
      },
      [&](Index blocks) { return blocks <= room_beside_table; },
      [&](const SequenceRun& run) {
        detail::differentiate_convolution(device, convolution.slice(run), room, paired, cut);
      });
}

}  // namespace moe_mamba::inline v0_2::cuda
