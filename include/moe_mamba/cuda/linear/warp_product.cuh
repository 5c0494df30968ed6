#pragma once

#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/cuda/common/mma.cuh"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/linear/tensor_tile.cuh"
#include "moe_mamba/cuda/linear/tile_walk.cuh"

/// The product of a tile by eight warps with matrix instructions that read registers: compute capability 8.0 and up.
namespace moe_mamba::inline v0_2::cuda::detail {

/// A warp's share of a tile: 64 rows and a quarter of the columns.
template <class Tile, Along a_along, Along b_along>
struct WarpProduct {
  static constexpr int columns = Tile::columns / 4;
  static constexpr int row_parts = 4, column_parts = columns / 8;
  float sums[row_parts][column_parts][4] = {};

  __device__ static int warp() { return warp_index(); }
  __device__ static int first_row() { return warp() / 4 * 64; }
  __device__ static int first_column() { return warp() % 4 * columns; }
  /// Whether any of the results of this warp are among the tile's rows and columns.
  __device__ static bool busy(Index rows, Index columns_) { return first_row() < rows && first_column() < columns_; }

  /// sums += the step whose factors lie at `a` and `b`
  __device__ void multiply(unsigned a, unsigned b) {
    const int lane = lane_index();
    const unsigned swizzle = unsigned(lane) % 8;
    // Lanes name lines in the order in which multiply_matrices wants the four matrices of a part: for a, rows and the
    // next eight, then the inner index's next eight; for b the other way round.
    if constexpr (a_along == Along::inner) {
      a += unsigned(first_row() + lane % 16) * TensorStep::line_bytes;
    } else {
      a += unsigned(first_row() / 64 * TensorStep::inner + lane / 16 * 8 + lane % 8) * TensorStep::line_bytes;
    }
    if constexpr (b_along == Along::inner) {
      b += unsigned(first_column() + lane / 16 * 8 + lane % 8) * TensorStep::line_bytes;
    } else {
      b += unsigned(first_column() / 64 * TensorStep::inner + lane % 16) * TensorStep::line_bytes;
    }
    unsigned a_parts[2][row_parts][4], b_parts[2][column_parts / 2][4];  // one set is loaded, one multiplied
    const auto load_parts = [&](int k, int set) {
#pragma unroll
      for (int i = 0; i < row_parts; ++i) {
        const unsigned run = unsigned(a_along == Along::inner ? k * 2 + lane / 16 : i * 2 + lane / 8 % 2) ^ swizzle;
        const unsigned lines = unsigned(a_along == Along::inner ? i : k) * 16;
        load_matrices<transpose_of<a_along>>(a_parts[set][i], a + lines * TensorStep::line_bytes + run * 16);
      }
#pragma unroll
      for (int j = 0; j < column_parts / 2; ++j) {
        const int column_run = first_column() % 64 / 8 + j * 2 + lane / 16;
        const unsigned run = unsigned(b_along == Along::inner ? k * 2 + lane / 8 % 2 : column_run) ^ swizzle;
        const unsigned lines = unsigned(b_along == Along::inner ? j : k) * 16;
        load_matrices<transpose_of<b_along>>(b_parts[set][j], b + lines * TensorStep::line_bytes + run * 16);
      }
    };
    load_parts(0, 0);
#pragma unroll
    for (int k = 0; k < TensorStep::inner / 16; ++k) {
      const int set = k % 2;
      if (k + 1 < TensorStep::inner / 16) load_parts(k + 1, 1 - set);
#pragma unroll
      for (int j = 0; j < column_parts; ++j) {
        const unsigned(&part)[4] = b_parts[set][j / 2];
#pragma unroll
        for (int i = 0; i < row_parts; ++i) {
          multiply_matrices(sums[i][j], a_parts[set][i], part[j % 2 * 2], part[j % 2 * 2 + 1]);
        }
      }
    }
  }
};

}  // namespace moe_mamba::inline v0_2::cuda::detail
