#pragma once

#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/cuda/block/tensor_tile.cuh"

/// The product of a tile by eight warps with matrix instructions that read registers: compute capability 8.0 and up.
namespace moe_mamba::cuda::detail {

/// Four 8 by 8 matrices from shared memory, transposed or not; each lane names a line.
template <bool transposed>
__device__ inline void load_matrices(unsigned (&to)[4], unsigned line) {
  if constexpr (transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(line)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(line)
                 : "memory");
  }
}

/// sums (16 by 8) += a (16 by 16) b (16 by 8)
__device__ inline void multiply_matrices(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// A warp's share of a tile: 64 rows and a quarter of the columns.
template <class Tile, bool a_inner_contiguous, bool b_inner_contiguous>
struct WarpProduct {
  static constexpr int columns = Tile::columns / 4;
  static constexpr int row_parts = 4, column_parts = columns / 8;
  float sums[row_parts][column_parts][4] = {};

  __device__ static int warp() { return int(threadIdx.x) / warp_size; }
  __device__ static int first_row() { return warp() / 4 * 64; }
  __device__ static int first_column() { return warp() % 4 * columns; }
  /// Whether any of the results of this warp are among the tile's rows and columns.
  __device__ static bool busy(Index rows, Index columns_) { return first_row() < rows && first_column() < columns_; }

  /// sums += the step whose factors lie at `a` and `b`
  __device__ void multiply(unsigned a, unsigned b) {
    const int lane = int(threadIdx.x) % warp_size;
    const unsigned swizzle = unsigned(lane) % 8;
    // Lanes name lines in the order in which multiply_matrices wants the four matrices of a part: for a, rows and the
    // next eight, then the inner index's next eight; for b the other way round.
    if constexpr (a_inner_contiguous) {
      a += unsigned(first_row() + lane % 16) * TensorStep::line_bytes;
    } else {
      a += unsigned(first_row() / 64 * TensorStep::inner + lane / 16 * 8 + lane % 8) * TensorStep::line_bytes;
    }
    if constexpr (b_inner_contiguous) {
      b += unsigned(first_column() + lane / 16 * 8 + lane % 8) * TensorStep::line_bytes;
    } else {
      b += unsigned(first_column() / 64 * TensorStep::inner + lane % 16) * TensorStep::line_bytes;
    }
    unsigned a_parts[2][row_parts][4], b_parts[2][column_parts / 2][4];  // one set is loaded, one multiplied
    const auto load_parts = [&](int k, int set) {
#pragma unroll
      for (int i = 0; i < row_parts; ++i) {
        const unsigned run = unsigned(a_inner_contiguous ? k * 2 + lane / 16 : i * 2 + lane / 8 % 2) ^ swizzle;
        const unsigned lines = unsigned(a_inner_contiguous ? i : k) * 16;
        load_matrices<!a_inner_contiguous>(a_parts[set][i], a + lines * TensorStep::line_bytes + run * 16);
      }
#pragma unroll
      for (int j = 0; j < column_parts / 2; ++j) {
        const int column_run = first_column() % 64 / 8 + j * 2 + lane / 16;
        const unsigned run = unsigned(b_inner_contiguous ? k * 2 + lane / 8 % 2 : column_run) ^ swizzle;
        const unsigned lines = unsigned(b_inner_contiguous ? j : k) * 16;
        load_matrices<!b_inner_contiguous>(b_parts[set][j], b + lines * TensorStep::line_bytes + run * 16);
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

}  // namespace moe_mamba::cuda::detail
