#pragma once

#include "moe_mamba/cuda/block/reduce.cuh"

/// The sums of a square tile, over 256 threads, and how a step of the inner index, which lies in shared memory line by
/// line, is added to them: by ordinary arithmetic, or in TF32 on tensor cores.
namespace moe_mamba::cuda::detail {

/// Ordinary arithmetic: each thread has a square of sums.
template <class C>
struct FmaSums {
  using Scalar = C;
  static constexpr int threads = 256, across = 16;
  static constexpr int side = sizeof(C) == 4 ? 128 : 64;    // rows and columns of a tile
  static constexpr int own = side / across;                 // rows and columns of a thread
  static constexpr int inner = 16;                          // of a step
  static constexpr int pitch = side + 16 / int(sizeof(C));  // of a line of shared memory, aligned to 16 bytes
  C sums[own][own] = {};

  __device__ static C rounded(C value) { return value; }

  __device__ static int y() { return int(threadIdx.x) / across; }
  __device__ static int x() { return int(threadIdx.x) % across; }
  /// Row or column `i` of a thread's own within the tile: quads, for wide loads, as far apart as there are threads.
  __device__ static int place(int thread, int i) { return i / 4 * (4 * across) + thread * 4 + i % 4; }

  __device__ void multiply(const C (&a)[inner][pitch], const C (&b)[inner][pitch]) {
#pragma unroll
    for (int k = 0; k < inner; ++k) {
      C a_own[own], b_own[own];
#pragma unroll
      for (int i = 0; i < own; ++i) a_own[i] = a[k][place(y(), i)];
#pragma unroll
      for (int i = 0; i < own; ++i) b_own[i] = b[k][place(x(), i)];
#pragma unroll
      for (int i = 0; i < own; ++i) {
#pragma unroll
        for (int j = 0; j < own; ++j) sums[i][j] += a_own[i] * b_own[j];
      }
    }
  }

  /// each(row, column, sum) for all of this thread.
  template <class Each>
  __device__ void for_each(const Each& each) const {
#pragma unroll
    for (int i = 0; i < own; ++i) {
#pragma unroll
      for (int j = 0; j < own; ++j) each(place(y(), i), place(x(), j), sums[i][j]);
    }
  }
};

/// TF32: factors of ten bits behind the point, sums in float. Each of eight warps has 64 by 32 sums. Lines are as long as
/// lets the threads of a warp read different banks: four lines, eight elements of each.
struct Tf32Sums {
  using Scalar = float;
  static constexpr int threads = 256;
  static constexpr int side = 128, inner = 16, pitch = side + 8;
  static constexpr int row_parts = 4, column_parts = 4;
  float sums[row_parts][column_parts][4] = {};

  /// To nearest, ties away from zero.
  __device__ static float rounded(float value) {
    float result;
    asm("{.reg .b32 bits; cvt.rna.tf32.f32 bits, %1; mov.b32 %0, bits;}" : "=f"(result) : "f"(value));
    return result;
  }

  __device__ static int lane() { return int(threadIdx.x) % warp_size; }
  __device__ static int first_row() { return int(threadIdx.x) / warp_size / 4 * 64; }
  __device__ static int first_column() { return int(threadIdx.x) / warp_size % 4 * 32; }

  /// sums (16 by 8) += a (16 by 8) b (8 by 8)
  __device__ static void multiply_matrices(float (&sums)[4], const float (&a)[4], const float (&b)[2]) {
    const auto bits = [](float value) { return __float_as_uint(value); };
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(bits(a[0])), "r"(bits(a[1])), "r"(bits(a[2])), "r"(bits(a[3])), "r"(bits(b[0])), "r"(bits(b[1])));
  }

  __device__ void multiply(const float (&a)[inner][pitch], const float (&b)[inner][pitch]) {
    const int across = lane() / 4, down = lane() % 4;
#pragma unroll
    for (int k = 0; k < inner; k += 8) {
      float a_parts[row_parts][4], b_parts[column_parts][2];
#pragma unroll
      for (int i = 0; i < row_parts; ++i) {
        const int row = first_row() + i * 16 + across;
        a_parts[i][0] = a[k + down][row], a_parts[i][1] = a[k + down][row + 8];
        a_parts[i][2] = a[k + down + 4][row], a_parts[i][3] = a[k + down + 4][row + 8];
      }
#pragma unroll
      for (int j = 0; j < column_parts; ++j) {
        const int column = first_column() + j * 8 + across;
        b_parts[j][0] = b[k + down][column], b_parts[j][1] = b[k + down + 4][column];
      }
#pragma unroll
      for (int i = 0; i < row_parts; ++i) {
#pragma unroll
        for (int j = 0; j < column_parts; ++j) multiply_matrices(sums[i][j], a_parts[i], b_parts[j]);
      }
    }
  }

  /// each(row, column, sum) for all of this thread.
  template <class Each>
  __device__ void for_each(const Each& each) const {
#pragma unroll
    for (int i = 0; i < row_parts; ++i) {
#pragma unroll
      for (int j = 0; j < column_parts; ++j) {
#pragma unroll
        for (int part = 0; part < 4; ++part) {
          each(first_row() + i * 16 + part / 2 * 8 + lane() / 4, first_column() + j * 8 + lane() % 4 * 2 + part % 2,
               sums[i][j][part]);
        }
      }
    }
  }
};

}  // namespace moe_mamba::cuda::detail
