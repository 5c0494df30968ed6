#pragma once

#include <cstdint>

#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/linear/tensor_tile.cuh"
#include "moe_mamba/cuda/linear/tile_walk.cuh"
#include "moe_mamba/cuda/linear/wgmma.cuh"

/// The product of a tile by two warpgroups with matrix instructions that read shared memory: compute capability 9.0, in
/// code compiled for sm_90a.
namespace moe_mamba::inline v0_2::cuda::detail {

/// A warpgroup's share of a tile: 64 rows, all columns.
template <class Tile, Along a_along, Along b_along>
struct WarpgroupProduct {
  static constexpr int row_parts = 1, column_parts = Tile::columns / 8;
  float sums[row_parts][column_parts][4] = {};

  /// A number that the compiler sees to be the same in all threads, without which instructions would not overlap.
  __device__ static int warpgroup() { return __shfl_sync(full_mask, int(threadIdx.x) / (4 * warp_size), 0); }
  __device__ static int first_row() { return warp_index() * 16; }
  __device__ static int first_column() { return 0; }
  /// Whether any of the results of this warpgroup are among the tile's rows and columns.
  __device__ static bool busy(Index rows, Index) { return warpgroup() * 64 < rows; }
  /// Makes what threads wrote to shared memory visible to multiply().
  __device__ static void publish() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

  /// What the instruction is told of a factor: its address, the bytes from one block of 64 columns to the next (of one
  /// whose columns are contiguous) and from one group of eight lines to the next, all in units of 16, and the swizzle
  /// over 128 bytes.
  __device__ static std::uint64_t descriptor(unsigned address, unsigned block_bytes) {
    constexpr std::uint64_t group_bytes = 8 * TensorStep::line_bytes;
    return (std::uint64_t(address & 0x3ffff) >> 4) | (std::uint64_t(block_bytes >> 4) << 16) |
           ((group_bytes >> 4) << 32) | (std::uint64_t(1) << 62);
  }

  /// sums += the step whose factors lie at `a` and `b`; returns when at most Tile::pending steps are not done with.
  __device__ void multiply(unsigned a, unsigned b) {
    a += unsigned(warpgroup()) * 64 * TensorStep::line_bytes;  // 64 rows, or a block of 64 rows
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int k = 0; k < TensorStep::inner / 16; ++k) {
      constexpr unsigned along = 32, across = 16 * TensorStep::line_bytes;  // from 16 of the inner index to the next
      multiply_warpgroup<transpose_of<a_along>, transpose_of<b_along>>(
          sums[0], descriptor(a + unsigned(k) * (a_along == Along::inner ? along : across), 16),
          descriptor(b + unsigned(k) * (b_along == Along::inner ? along : across),
                     TensorStep::inner * TensorStep::line_bytes));
    }
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Tile::pending) : "memory");
  }
  /// Waits for the last multiply().
  __device__ static void finish() { asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory"); }
};

}  // namespace moe_mamba::inline v0_2::cuda::detail
