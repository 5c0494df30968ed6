#pragma once

#include <cstdint>

#include "moe_mamba/cuda/block/tensor_tile.cuh"

/// The product of a tile by two warpgroups with matrix instructions that read shared memory: compute capability 9.0, in
/// code compiled for sm_90a.
namespace moe_mamba::cuda::detail {

/// sums (64 by 256) += a (64 by 16) b (16 by 256), which descriptors name; goes on after the call.
template <bool a_transposed, bool b_transposed>
__device__ inline void multiply_warpgroup(float (&sums)[32][4], std::uint64_t a, std::uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, "
      "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, "
      "%34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, "
      "%50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, "
      "%66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, "
      "%82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, "
      "%98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, "
      "%126, %127}, "
      "%128, %129, 1, 1, 1, %130, %131;"
      : "+f"(sums[0][0]), "+f"(sums[0][1]), "+f"(sums[0][2]), "+f"(sums[0][3]), "+f"(sums[1][0]), "+f"(sums[1][1]),
        "+f"(sums[1][2]), "+f"(sums[1][3]), "+f"(sums[2][0]), "+f"(sums[2][1]), "+f"(sums[2][2]), "+f"(sums[2][3]),
        "+f"(sums[3][0]), "+f"(sums[3][1]), "+f"(sums[3][2]), "+f"(sums[3][3]), "+f"(sums[4][0]), "+f"(sums[4][1]),
        "+f"(sums[4][2]), "+f"(sums[4][3]), "+f"(sums[5][0]), "+f"(sums[5][1]), "+f"(sums[5][2]), "+f"(sums[5][3]),
        "+f"(sums[6][0]), "+f"(sums[6][1]), "+f"(sums[6][2]), "+f"(sums[6][3]), "+f"(sums[7][0]), "+f"(sums[7][1]),
        "+f"(sums[7][2]), "+f"(sums[7][3]), "+f"(sums[8][0]), "+f"(sums[8][1]), "+f"(sums[8][2]), "+f"(sums[8][3]),
        "+f"(sums[9][0]), "+f"(sums[9][1]), "+f"(sums[9][2]), "+f"(sums[9][3]), "+f"(sums[10][0]), "+f"(sums[10][1]),
        "+f"(sums[10][2]), "+f"(sums[10][3]), "+f"(sums[11][0]), "+f"(sums[11][1]), "+f"(sums[11][2]),
        "+f"(sums[11][3]), "+f"(sums[12][0]), "+f"(sums[12][1]), "+f"(sums[12][2]), "+f"(sums[12][3]),
        "+f"(sums[13][0]), "+f"(sums[13][1]), "+f"(sums[13][2]), "+f"(sums[13][3]), "+f"(sums[14][0]),
        "+f"(sums[14][1]), "+f"(sums[14][2]), "+f"(sums[14][3]), "+f"(sums[15][0]), "+f"(sums[15][1]),
        "+f"(sums[15][2]), "+f"(sums[15][3]), "+f"(sums[16][0]), "+f"(sums[16][1]), "+f"(sums[16][2]),
        "+f"(sums[16][3]), "+f"(sums[17][0]), "+f"(sums[17][1]), "+f"(sums[17][2]), "+f"(sums[17][3]),
        "+f"(sums[18][0]), "+f"(sums[18][1]), "+f"(sums[18][2]), "+f"(sums[18][3]), "+f"(sums[19][0]),
        "+f"(sums[19][1]), "+f"(sums[19][2]), "+f"(sums[19][3]), "+f"(sums[20][0]), "+f"(sums[20][1]),
        "+f"(sums[20][2]), "+f"(sums[20][3]), "+f"(sums[21][0]), "+f"(sums[21][1]), "+f"(sums[21][2]),
        "+f"(sums[21][3]), "+f"(sums[22][0]), "+f"(sums[22][1]), "+f"(sums[22][2]), "+f"(sums[22][3]),
        "+f"(sums[23][0]), "+f"(sums[23][1]), "+f"(sums[23][2]), "+f"(sums[23][3]), "+f"(sums[24][0]),
        "+f"(sums[24][1]), "+f"(sums[24][2]), "+f"(sums[24][3]), "+f"(sums[25][0]), "+f"(sums[25][1]),
        "+f"(sums[25][2]), "+f"(sums[25][3]), "+f"(sums[26][0]), "+f"(sums[26][1]), "+f"(sums[26][2]),
        "+f"(sums[26][3]), "+f"(sums[27][0]), "+f"(sums[27][1]), "+f"(sums[27][2]), "+f"(sums[27][3]),
        "+f"(sums[28][0]), "+f"(sums[28][1]), "+f"(sums[28][2]), "+f"(sums[28][3]), "+f"(sums[29][0]),
        "+f"(sums[29][1]), "+f"(sums[29][2]), "+f"(sums[29][3]), "+f"(sums[30][0]), "+f"(sums[30][1]),
        "+f"(sums[30][2]), "+f"(sums[30][3]), "+f"(sums[31][0]), "+f"(sums[31][1]), "+f"(sums[31][2]), "+f"(sums[31][3])
      : "l"(a), "l"(b), "n"(a_transposed ? 1 : 0), "n"(b_transposed ? 1 : 0));
}

/// A warpgroup's share of a tile: 64 rows, all columns.
template <bool a_inner_contiguous, bool b_inner_contiguous>
struct WarpgroupProduct {
  /// Steps that are copied before they are needed: while one is multiplied, the one before may not be done yet.
  static constexpr int ahead = TensorTile::stages - 2;
  static constexpr int row_parts = 1, column_parts = 32;
  float sums[row_parts][column_parts][4] = {};

  /// A number that the compiler sees to be the same in all threads, without which instructions would not overlap.
  __device__ static int warpgroup() { return __shfl_sync(whole_warp, int(threadIdx.x) / (4 * warp_size), 0); }
  __device__ static int first_row() { return int(threadIdx.x) / warp_size * 16; }
  __device__ static int first_column() { return 0; }
  /// Whether any of the results of this warpgroup are among the tile's rows and columns.
  __device__ static bool busy(int rows, Index) { return warpgroup() * 64 < rows; }
  /// Makes copies to shared memory visible to multiply().
  __device__ static void publish() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

  /// What the instruction is told of a factor: its address, the bytes from one block of 64 columns to the next (of one
  /// whose columns are contiguous) and from one group of eight lines to the next, all in units of 16, and the swizzle
  /// over 128 bytes.
  __device__ static std::uint64_t descriptor(unsigned address, unsigned block_bytes) {
    constexpr std::uint64_t group_bytes = 8 * TensorTile::line_bytes;
    return (std::uint64_t(address & 0x3ffff) >> 4) | (std::uint64_t(block_bytes >> 4) << 16) |
           ((group_bytes >> 4) << 32) | (std::uint64_t(1) << 62);
  }

  /// sums += the step whose factors lie at `a` and `b`; returns when the step before is done with.
  __device__ void multiply(unsigned a, unsigned b) {
    a += unsigned(warpgroup()) * 64 * TensorTile::line_bytes;  // 64 rows, or a block of 64 rows
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int k = 0; k < TensorTile::inner / 16; ++k) {
      constexpr unsigned along = 32, across = 16 * TensorTile::line_bytes;  // from 16 of the inner index to the next
      multiply_warpgroup<!a_inner_contiguous, !b_inner_contiguous>(
          sums[0], descriptor(a + unsigned(k) * (a_inner_contiguous ? along : across), 16),
          descriptor(b + unsigned(k) * (b_inner_contiguous ? along : across),
                     TensorTile::inner * TensorTile::line_bytes));
    }
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
  }
  /// Waits for the last multiply().
  __device__ static void finish() { asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory"); }
};

}  // namespace moe_mamba::cuda::detail
