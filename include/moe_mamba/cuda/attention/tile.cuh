#pragma once

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/ops/attention.hpp"

/// The building blocks of attention's kernels: tiles of rows in shared memory, products of rows with rows, and sums of
/// rows with weights held by the lanes of a warp.
///
/// In a product a warp has `own` rows of one tile, the same for all lanes, and each lane has one row of the other tile:
/// queries and keys in the forward pass, keys and queries for the gradients with respect to keys. The same two loops
/// thus serve both passes.
namespace moe_mamba::inline v0_2::cuda::detail {

template <class C, int HeadWidth>
struct AttentionTile {
  static constexpr int warps = 4, threads = warps * warp_size;
  /// A warp's own rows: as many as there are registers for their sums.
  static constexpr int own = (sizeof(C) == 4 ? 8 : 4) / (HeadWidth > 128 ? 2 : 1);
  static constexpr int own_rows = warps * own;                          // of a block
  static constexpr int lane_rows = warp_size;                           // of a block: one per lane
  static constexpr int columns = ceiling_divide(HeadWidth, warp_size);  // of a row's sum, per lane
  /// Rows are an odd number of 16-byte vectors long: lanes that read the same vector of neighbouring rows access
  /// different banks.
  static constexpr int size = full_vector<C>, vectors = ceiling_divide(HeadWidth, size);
  static constexpr int stride = (vectors | 1) * size;
};

/// Loads rows 0 … count - 1 (count >= 1), where row i is from(i), times `scale` into a tile of `rows` rows; zeros
/// beyond.
template <class C, int HeadWidth, class From>
__device__ inline void load_tile(const From& from, int count, int rows, C scale, C* tile) {
  using Tile = AttentionTile<C, HeadWidth>;
  const int lane = lane_index(), warp = warp_index();
  for (int row = warp; row < rows; row += Tile::warps) {
    const bool there = row < count;
    const auto at = from(there ? row : 0);
    for (int i = lane; i < Tile::stride; i += warp_size) {
      tile[row * Tile::stride + i] = there && i < HeadWidth ? scale * at[i] : C(0);
    }
  }
}

/// dots[r] = own row r · the lane's row
template <class C, int HeadWidth>
__device__ inline void tile_dots(const C* own, const C* lane_row, C (&dots)[AttentionTile<C, HeadWidth>::own]) {
  using Tile = AttentionTile<C, HeadWidth>;
  using Numbers = Vector<C, Tile::size>;
#pragma unroll
  for (int r = 0; r < Tile::own; ++r) dots[r] = C(0);
#pragma unroll 4
  for (int v = 0; v < Tile::vectors; ++v) {
    const Numbers b = *reinterpret_cast<const Numbers*>(lane_row + v * Tile::size);
#pragma unroll
    for (int r = 0; r < Tile::own; ++r) {
      const Numbers a = *reinterpret_cast<const Numbers*>(own + r * Tile::stride + v * Tile::size);
#pragma unroll
      for (int i = 0; i < Tile::size; ++i) dots[r] = fma(a.values[i], b.values[i], dots[r]);
    }
  }
}

/// sums[r] += Σ_j weights[r] of lane j times row j of the tile, for the lanes j of mask[r].
template <class C, int HeadWidth>
__device__ inline void add_weighted(const C (&weights)[AttentionTile<C, HeadWidth>::own],
                                    const unsigned (&masks)[AttentionTile<C, HeadWidth>::own], const C* tile,
                                    C (&sums)[AttentionTile<C, HeadWidth>::own][AttentionTile<C, HeadWidth>::columns]) {
  using Tile = AttentionTile<C, HeadWidth>;
  const int lane = lane_index();
#pragma unroll 2
  for (int j = 0; j < warp_size; ++j) {
    C row[Tile::columns];
#pragma unroll
    for (int c = 0; c < Tile::columns; ++c) {
      const int column = lane + c * warp_size;
      row[c] = column < HeadWidth ? tile[j * Tile::stride + column] : C(0);
    }
#pragma unroll
    for (int r = 0; r < Tile::own; ++r) {
      const C weight = __shfl_sync(full_mask, weights[r], j);
      if ((masks[r] >> j & 1u) == 0) continue;  // uniform over the warp; a masked row is skipped, as it may hold a NaN
#pragma unroll
      for (int c = 0; c < Tile::columns; ++c) sums[r][c] = fma(weight, row[c], sums[r][c]);
    }
  }
}

/// The largest value of a warp, in each of its threads; NaNs are ignored.
template <class C>
__device__ inline C warp_largest(C value) {
  for (int distance = warp_size / 2; distance > 0; distance /= 2) {
    value = fmax(value, __shfl_xor_sync(full_mask, value, distance));
  }
  return value;
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
