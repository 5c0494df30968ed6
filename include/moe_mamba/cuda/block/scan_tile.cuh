#pragma once

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/cuda/block/scan_mathematics.cuh"
#include "moe_mamba/cuda/tuning/selective_scan.hpp"

/// What the kernels of the scan share.
namespace moe_mamba::cuda::detail {

/// Values of B or C that are loaded at once.
template <class C, int Count>
struct alignas(Count * sizeof(C) < 16 ? Count * sizeof(C) : 16) ScanCoefficients {
  C of[Count];
};

/// Δ and Δ u of a step, or Δ and u.
template <class C>
struct alignas(2 * sizeof(C)) ScanInput {
  C delta, u;
};

/// Shared memory of a block, forward.
template <class C, class Tuning>
struct ScanStorage {
  ScanInput<C> inputs[Tuning::steps][warp_size];                                      // Δ and Δ u
  ScanCoefficients<C, Tuning::padded> coefficients[Tuning::steps][2][Tuning::warps];  // B and C
  C parts[Tuning::warps][Tuning::steps][warp_size];  // Σ_n C h over the states of a warp
};

/// Shared memory of a block on the way back.
template <class C, class Tuning>
struct ScanBackwardStorage {
  static constexpr int parts_a_step = 3;

  ScanInput<C> inputs[Tuning::piece][Tuning::width];         // Δ and u, of a piece
  C starts[Tuning::tiles][Tuning::states][Tuning::threads];  // the state in front of each tile
  ScanCoefficients<C, Tuning::padded> b[Tuning::piece][Tuning::warps];
  ScanCoefficients<C, Tuning::padded> c[Tuning::steps][Tuning::warps];
  C dp[Tuning::steps][Tuning::width];                                  // dy silu(z), of a tile
  C parts[parts_a_step][Tuning::warps][Tuning::steps][Tuning::width];  // sums over the states of a warp
  C sums[2][Tuning::width / warp_size][Tuning::warps][Tuning::steps * Tuning::padded];  // dB and dC, over lanes
};

/// A thread's way through rows of a matrix that lie `Apart` rows apart. The stride is not kept but read where it is used.
template <class T, int Apart>
struct RowCursor {
  const MatrixView<T>& rows;
  T* at;

  __device__ __forceinline__ RowCursor(const MatrixView<T>& matrix, Index row, Index column)
      : rows(matrix), at(matrix.data + row * matrix.stride + column) {}

  /// To the row of its own that lies `count` further on.
  __device__ __forceinline__ void move(int count) { at += count * Apart * rows.stride; }
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

  ScanPartialSums(Arena& arena, Shape shape, Index chunks, Index channels, Index states) {
    const Index groups = ceiling_of(channels, Index{scan_backward_width(sizeof(C), states)});
    db = arena.take<C>(groups * shape.tokens() * states);
    dc = arena.take<C>(groups * shape.tokens() * states);
    da_log = arena.take<C>(shape.batch * chunks * channels * states);
    dd = arena.take<C>(shape.batch * chunks * channels);
    dbias = arena.take<C>(shape.batch * chunks * channels);
  }
};

/// The part of a scan that a thread works on.
struct ScanPlace {
  int lane, warp;
  Index channel;  // of the lane; may lie past the last one
  Index sequence, chunk;
  Index begin, end;  // steps of the chunk

  /// Blocks are numbered by sequence, chunk, and group of `width` channels.
  __device__ __forceinline__ ScanPlace(Index channels, Index length, ScanChunking chunking, int width = warp_size)
      : lane(static_cast<int>(threadIdx.x) % warp_size), warp(static_cast<int>(threadIdx.x) / warp_size) {
    const Index groups = (channels + width - 1) / width, part = blockIdx.x / groups;
    channel = (blockIdx.x - part * groups) * width + lane;
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
