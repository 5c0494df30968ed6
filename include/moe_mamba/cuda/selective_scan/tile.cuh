#pragma once

#include <limits>
#include <type_traits>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/cuda/common/mathematics.cuh"
#include "moe_mamba/cuda/common/row_cursor.cuh"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/selective_scan/tuning.cuh"

/// What the kernels of the scan share. Whatever the type of activations is, C of what follows is that of arithmetic.
namespace moe_mamba::cuda::detail {

/// A thread's way through rows that one pass of a scan or several add to: the first of them writes.
template <class C, bool Apart, int RowsApart>
struct OutputCursor {
  using T = compute_t<C>;
  RowCursor<C, RowsApart> output;

  __device__ __forceinline__ OutputCursor(const MatrixView<C>& to, const MatrixView<T>& /*sums*/, Index row,
                                          Index column)
      : output(to, row, column) {}

  __device__ __forceinline__ void move(int count) { output.move(count); }

  /// As in RowCursor. What is rounded has one pass, or has its sums apart.
  template <bool Together, int Count>
  __device__ __forceinline__ void add(Vector<T, Count> values, int present, bool first, bool /*last*/) const {
    if constexpr (std::is_same_v<C, T>) {
      if (!first) {
        Vector<T, Count> before = {};
        output.template load<Together>(before, present);
#pragma unroll
        for (int j = 0; j < Count; ++j) values.values[j] += before.values[j];
      }
    }
    output.template store<Together>(narrow<C>(values), present);
  }
};

/// The same where passes add up in `sums`, in the type of arithmetic, and the last of them rounds the whole, once. Addresses
/// are found where they are used: no register holds them.
template <class C, int RowsApart>
struct OutputCursor<C, true, RowsApart> {
  using T = compute_t<C>;
  const MatrixView<C>& output;
  const MatrixView<T>& sums;
  Index row, column;

  __device__ __forceinline__ OutputCursor(const MatrixView<C>& to, const MatrixView<T>& sums_of_passes, Index first_row,
                                          Index first_column)
      : output(to), sums(sums_of_passes), row(first_row), column(first_column) {}

  __device__ __forceinline__ void move(int count) { row += count * RowsApart; }

  template <bool Together, int Count>
  __device__ __forceinline__ void add(Vector<T, Count> values, int present, bool first, bool last) const {
    const RowCursor<T, RowsApart> sum(sums, row, column);
    if (!first) {
      Vector<T, Count> before = {};
      sum.template load<Together>(before, present);
#pragma unroll
      for (int j = 0; j < Count; ++j) values.values[j] += before.values[j];
    }
    if (last) {
      RowCursor<C, RowsApart>(output, row, column).template store<Together>(narrow<C>(values), present);
    } else {
      sum.template store<Together>(values, present);
    }
  }
};

/// Δ and Δ u of a step, or Δ and u.
template <class C>
struct alignas(2 * sizeof(C)) ScanInput {
  C delta, u;
};

/// Shared memory of a block, forward: of two tiles, one at work and one made ready.
template <class C, class Tuning>
struct ScanStorage {
  using States = Vector<C, Tuning::padded>;
  using Channels = Vector<C, Tuning::channels>;
  using Elements = Vector<C, Tuning::together>;

  struct Tile {
    alignas(16) ScanInput<C> inputs[Tuning::steps][Tuning::width];  // Δ and Δ u; or, backward, Δ and dy silu(z)
    States b[Tuning::steps][Tuning::warps], c[Tuning::steps][Tuning::warps];
    alignas(16) C parts[Tuning::warps][Tuning::steps][Tuning::width];  // Σ_n C h over the states of a warp
  };
  Tile tiles[2];
};

/// Shared memory of a block on the way back. What belongs to channels lies as a lane takes it: those of one side by side.
template <class C, class Tuning>
struct ScanBackwardStorage {
  static constexpr int parts_a_step = 3;
  using States = Vector<C, Tuning::padded>;
  using Channels = Vector<C, Tuning::channels>;
  using Elements = Vector<C, Tuning::together>;

  ScanInput<C> inputs[Tuning::piece][Tuning::width];  // Δ and Δ u, of a piece
  States starts[Tuning::piece / Tuning::held - 1][Tuning::channels]
               [Tuning::threads];  // in front of the steps that are held
  States b[Tuning::piece][Tuning::copies][Tuning::warps];
  States c[Tuning::steps][Tuning::copies][Tuning::warps];
  alignas(16) C dp[Tuning::steps][Tuning::width];                                  // dy silu(z), of a tile
  alignas(16) C parts[parts_a_step][Tuning::warps][Tuning::steps][Tuning::width];  // sums over the states of a warp
};

/// What delta is taken for where there is no step: Δ = 0, which changes no state.
template <class C>
inline constexpr C no_step = -std::numeric_limits<C>::infinity();

/// Where a thread is in what is done once for each element, and which elements of B and C it loads.
template <class Tuning>
struct ScanElements {
  static __device__ __forceinline__ int thread() { return static_cast<int>(threadIdx.x); }
  static __device__ __forceinline__ int row() { return thread() / (Tuning::width / Tuning::together); }
  static __device__ __forceinline__ int column() {
    return thread() % (Tuning::width / Tuning::together) * Tuning::together;
  }
  static __device__ __forceinline__ int coefficient_row() { return thread() / Tuning::coefficients; }
  static __device__ __forceinline__ int group() { return thread() % Tuning::coefficients / Tuning::padded; }
  static __device__ __forceinline__ int place() { return thread() % Tuning::padded; }  // in its group
  static __device__ __forceinline__ int state() { return group() * Tuning::states + place(); }
  /// Whether the element is one of `States`.
  template <int States>
  static __device__ __forceinline__ bool has_state(int first_state) {
    return place() < Tuning::states && (Tuning::exact || first_state + state() < States);
  }
};

/// What the launches of a scan that is cut into chunks hand to one another.
template <class C>
struct ScanCarry {
  ScanChunking chunking;
  C* states = nullptr;      // (B, chunks, N, E): what a chunk makes of zero states, then what it really begins with
  C* delta_sums = nullptr;  // (B, chunks, E): Σ_t Δ_t

  ScanCarry(Arena& arena, ScanChunking cut, Index batch, Index channels, Index count) : chunking(cut) {
    if (cut.count == 1) return;
    states = arena.take<C>(batch * cut.count * count * channels);
    delta_sums = arena.take<C>(batch * cut.count * channels);
  }
};

/// Sums that blocks leave for the launch that adds them up.
template <class C>
struct ScanPartialSums {
  C* db;      // (groups of channels, T, N)
  C* dc;      // (groups of channels, T, N)
  C* da_log;  // (B, chunks, E, N)
  C* dd;      // (B, chunks, E)
  C* dbias;   // (B, chunks, E)

  /// `parts`: sequences times chunks.
  ScanPartialSums(Arena& arena, Shape shape, Index parts, Index channels, Index states) {
    const Index groups = ceiling_divide(channels, Index{scan_backward_width(sizeof(C), states)});
    db = arena.take<C>(groups * shape.tokens() * states);
    dc = arena.take<C>(groups * shape.tokens() * states);
    da_log = arena.take<C>(parts * channels * states);
    dd = arena.take<C>(parts * channels);
    dbias = arena.take<C>(parts * channels);
  }
};

/// What passes add up before the last of them rounds it, of outputs that are rounded; see OutputCursor.
template <class Activation, int Outputs>
struct ScanPassSums {
  MatrixView<compute_t<Activation>> of[Outputs];  // (T, E) each, or null where the outputs themselves are added to

  static constexpr bool apart(Index passes) { return passes > 1 && !std::is_same_v<Activation, compute_t<Activation>>; }

  ScanPassSums(Arena& arena, Shape shape, Index channels, Index passes) {
    if (!apart(passes)) return;
    for (auto& sums : of) {
      sums = matrix(arena.take<compute_t<Activation>>(shape.tokens() * channels), shape.tokens(), channels);
    }
  }
};

/// The part of a scan that a thread works on.
struct ScanPlace {
  int lane, warp;
  Index first_channel;  // of the block
  Index sequence, chunk;
  Index begin, end;  // steps of the chunk

  /// Blocks are numbered by sequence, chunk, and group of `width` channels.
  __device__ __forceinline__ ScanPlace(Index channels, Index length, ScanChunking chunking, int width)
      : lane(lane_index()), warp(warp_index()) {
    const Index groups = ceiling_divide(channels, width), part = blockIdx.x / groups;
    first_channel = (blockIdx.x - part * groups) * width;
    sequence = part / chunking.count;
    chunk = part - sequence * chunking.count;
    begin = chunk * chunking.length;
    end = min(begin + chunking.length, length);
  }
};

/// Carries states over the chunks of a sequence: each chunk's gets replaced by what the chunk begins with. With Backward
/// the gradients of states, from the last chunk to the first. A thread takes one state of one channel.
template <class C, class S, int States, bool Backward>
__global__ void __launch_bounds__(128)
    scan_carry_kernel(ScanCarry<C> carry, const S* a_log, StateView<const C> initial, Index batch, Index channels) {
  const Index index = Index{blockIdx.x} * blockDim.x + threadIdx.x;
  if (index >= batch * States * channels) return;
  const Index channel = index % channels, n = index / channels % States, sequence = index / channels / States;
  const C rate = decay_rate<C>(a_log[channel * States + n]);
  C h = initial.data == nullptr ? C(0) : initial.data[sequence * initial.stride + n * channels + channel];
  const Index count = carry.chunking.count;
  constexpr int together = 8;  // chunks whose values are asked for at once
  for (Index first = 0; first < count; first += together) {
    C own[together], sums[together];
    const auto chunk = [&](int i) { return sequence * count + (Backward ? count - 1 - first - i : first + i); };
    const auto state = [&](int i) { return carry.states + (chunk(i) * States + n) * channels + channel; };
#pragma unroll
    for (int i = 0; i < together; ++i) {
      if (first + i >= count) break;
      own[i] = *state(i);
      sums[i] = carry.delta_sums[chunk(i) * channels + channel];
    }
#pragma unroll
    for (int i = 0; i < together; ++i) {
      if (first + i >= count) break;
      *state(i) = h;
      h = fma(power_of_two(rate * sums[i]), h, own[i]);
    }
  }
}

}  // namespace moe_mamba::cuda::detail
