#pragma once

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cuda/attention/rows.cuh"
#include "moe_mamba/cuda/common/mma.cuh"
#include "moe_mamba/cuda/common/rounding.cuh"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/common/vector.cuh"

/// The building blocks of attention in bfloat16 on tensor cores: tiles of rows in shared memory, products of a warp's
/// 16 rows with the rows of another tile, and sums of rows weighted by such products. Weights are rounded to bfloat16
/// as operands of products.
///
/// Fragments are those of mma.m16n8: of 16 rows by 8 columns a lane holds two neighbours in row lane / 4 and two in row
/// lane / 4 + 8.
namespace moe_mamba::inline v0_2::cuda::detail {

/// Sizes for heads of width `d`: the block's own rows, and the rows of the tiles that it iterates over.
template <int d, int other_rows_>
struct AttentionTensorTile {
  static constexpr int warps = 4, threads = warps * warp_size;
  static constexpr int own = 16 * warps, others = other_rows_;
  /// Rows are padded by 16 bytes: the same vector of eight consecutive rows then lies in different banks.
  static constexpr int stride = d + 8;
};

/// Whether there are tiles for this type and head width.
template <class C, int d>
inline constexpr bool attention_has_tensor_tiles = std::is_same_v<C, bfloat16>&& d % 16 == 0 && d <= 128;

/// A vector of a row, rounded to bfloat16 if it is cached in float.
using RowVector = Packed<bfloat16, 8>;
__device__ inline RowVector load_row_vector(const OwnRow<bfloat16>& row, int at) {
  return *reinterpret_cast<const RowVector*>(row.own + at);
}
__device__ inline RowVector load_row_vector(const SeenRow<bfloat16>& row, int at) {
  if (row.cached == nullptr) return *reinterpret_cast<const RowVector*>(row.own + at);
  const float* const from = row.cached + at;
  return {rounded_pair(from[0], from[1]), rounded_pair(from[2], from[3]), rounded_pair(from[4], from[5]),
          rounded_pair(from[6], from[7])};
}

/// A prefetched tile of rows: a thread's share of it in registers, all loaded before the first store.
template <int d, int rows>
class TileVectors {
  static constexpr int vectors = d / 8, stride = AttentionTensorTile<d, 16>::stride;
  static constexpr int threads = AttentionTensorTile<d, 16>::threads;
  static constexpr int own = ceiling_divide(rows * vectors, threads);

 public:
  /// Rows 0 … count - 1, where row i is from(i); zeros beyond.
  template <class From>
  __device__ TileVectors(const From& from, int count) {
#pragma unroll
    for (int i = 0; i < own; ++i) {
      const int at = int(threadIdx.x) + i * threads, row = at / vectors;
      values_[i] = row < min(count, rows) ? load_row_vector(from(row), at % vectors * 8) : RowVector{};
    }
  }

  /// Stores them in shared memory and returns whether one of the thread's numbers is non-finite.
  __device__ bool store(bfloat16* tile) const {
    bool has_nonfinite = false;
#pragma unroll
    for (int i = 0; i < own; ++i) {
      const int at = int(threadIdx.x) + i * threads;
      if (at < rows * vectors)
        *reinterpret_cast<RowVector*>(tile + at / vectors * stride + at % vectors * 8) = values_[i];
      for (const unsigned pair : values_[i].values) {
        has_nonfinite = has_nonfinite | ((pair & 0x7f80u) == 0x7f80u) | ((pair & 0x7f800000u) == 0x7f800000u);
      }
    }
    return has_nonfinite;
  }

 private:
  RowVector values_[own];
};

/// The columns of a tile that a row attends to: from … to - 1.
struct SeenColumns {
  int from = 0, to = 0;

  __device__ SeenColumns(Index first_seen, Index end_seen, Index first_column, int columns)
      : from(int(min(max(first_seen - first_column, Index{0}), Index{columns}))),
        to(int(min(max(end_seen - first_column, Index{0}), Index{columns}))) {}
  __device__ bool sees(int column) const { return (column >= from) & (column < to); }
};

__device__ inline unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

/// products = the 16 rows from `own` on times each of `others` rows.
template <int d, int others>
__device__ inline void multiply_rows(const bfloat16* own, const bfloat16* other, float (&products)[others / 8][4]) {
  constexpr int stride = AttentionTensorTile<d, others>::stride;
  const int lane = lane_index();
#pragma unroll
  for (auto& of : products) of[0] = of[1] = of[2] = of[3] = 0.0f;
  const unsigned a_line = shared_address(own + lane % 16 * stride + lane / 16 * 8);
  const unsigned b_line = shared_address(other + (lane / 16 * 8 + lane % 8) * stride + lane / 8 % 2 * 8);
#pragma unroll
  for (int k = 0; k < d / 16; ++k) {
    unsigned a[4];
    load_matrices<Transpose::no>(a, a_line + unsigned(k) * 32);
#pragma unroll
    for (int n = 0; n < others / 16; ++n) {
      unsigned b[4];
      load_matrices<Transpose::no>(b, b_line + unsigned(n * 16 * stride * 2 + k * 32));
      multiply_matrices(products[2 * n], a, b[0], b[1]);
      multiply_matrices(products[2 * n + 1], a, b[2], b[3]);
    }
  }
}

/// sums += weights of 16 rows times the rows of `other`
template <int d, int others>
__device__ inline void add_weighted_rows(const float (&weights)[others / 8][4], const bfloat16* other,
                                         float (&sums)[d / 8][4]) {
  constexpr int stride = AttentionTensorTile<d, others>::stride;
  const int lane = lane_index();
  const unsigned b_line = shared_address(other + lane % 16 * stride + lane / 16 * 8);
#pragma unroll
  for (int k = 0; k < others / 16; ++k) {
    const float(&low)[4] = weights[2 * k];
    const float(&high)[4] = weights[2 * k + 1];
    const unsigned a[4] = {rounded_pair(low[0], low[1]), rounded_pair(low[2], low[3]), rounded_pair(high[0], high[1]),
                           rounded_pair(high[2], high[3])};
#pragma unroll
    for (int n = 0; n < d / 16; ++n) {
      unsigned b[4];
      load_matrices<Transpose::yes>(b, b_line + unsigned(k * 16 * stride * 2 + n * 32));
      multiply_matrices(sums[2 * n], a, b[0], b[1]);
      multiply_matrices(sums[2 * n + 1], a, b[2], b[3]);
    }
  }
}

/// The same, restricted to the columns that the lane's two rows attend to: for tiles with non-finite numbers, as 0 ·
/// NaN is NaN.
template <int d, int others, class Seen>
__device__ inline void add_seen_source(const float (&weights)[others / 8][4], const bfloat16* other,
                                       const Seen (&seen)[2], float (&sums)[d / 8][4]) {
  constexpr int stride = AttentionTensorTile<d, others>::stride;
  const int lane = lane_index();
#pragma unroll
  for (int t = 0; t < others / 8; ++t) {
#pragma unroll 1
    for (int i = 0; i < 8; ++i) {
      const int from = lane / 4 * 4 + i / 2;
      const bfloat16* const row = other + (t * 8 + i) * stride + lane % 4 * 2;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float mine = i % 2 == 0 ? weights[t][2 * half] : weights[t][2 * half + 1];
        const float weight = __shfl_sync(full_mask, mine, from);
        if (!seen[half].sees(t * 8 + i)) continue;
#pragma unroll
        for (int n = 0; n < d / 8; ++n) {
          sums[n][2 * half] = fmaf(weight, float(row[n * 8]), sums[n][2 * half]);
          sums[n][2 * half + 1] = fmaf(weight, float(row[n * 8 + 1]), sums[n][2 * half + 1]);
        }
      }
    }
  }
}

/// Reduces a number over the four lanes that share rows.
template <class Join>
__device__ inline float reduce_row(float value, const Join& join) {
  value = join(value, __shfl_xor_sync(full_mask, value, 1));
  return join(value, __shfl_xor_sync(full_mask, value, 2));
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
