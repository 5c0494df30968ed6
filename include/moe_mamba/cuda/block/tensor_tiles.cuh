#pragma once

#include <cstdint>
#include <type_traits>

#include "moe_mamba/cuda/block/tensor_tile.cuh"
#include "moe_mamba/cuda/block/tiles.cuh"
#include "moe_mamba/cuda/block/warp_product.cuh"
#include "moe_mamba/cuda/block/warpgroup_product.cuh"

/// Grouped products of bfloat16 factors, summed in float, on tensor cores.
namespace moe_mamba::cuda::detail {

/// y = or += x B for rows in groups, as grouped_kernel; x holds the rows of all groups from `first_row` on. Needs rows
/// of x and weights that are aligned to 16 bytes, and sizes along them that 8 divides.
template <bool inner_contiguous>
__global__ void __launch_bounds__(TensorTile::threads, 1)
    grouped_tensor_kernel(Groups groups, Index first_row, MatrixView<const bfloat16> x, const bfloat16* weight,
                          Index step, Index stride, MatrixView<float> y, bool add) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Product = WarpgroupProduct<inner_contiguous>;
#else
  using Product = WarpProduct<inner_contiguous>;
#endif
  using Tile = TensorTile;
  using ACopies = LineCopies<Tile::rows, Tile::inner>;
  using BCopies = std::conditional_t<inner_contiguous, LineCopies<Tile::columns, Tile::inner>,
                                     LineCopies<Tile::inner, Tile::columns>>;
  extern __shared__ uint4 shared_words[];
  const unsigned shared_address = static_cast<unsigned>(__cvta_generic_to_shared(shared_words));
  const unsigned a_shared = (shared_address + Tile::alignment - 1) / Tile::alignment * Tile::alignment;
  const unsigned b_shared = a_shared + Tile::stages * Tile::a_bytes;
  const Index k_count = x.columns, steps = ceiling_divide(k_count, Index{Tile::inner});

  TileWalk walk(groups, first_row, x.rows, Tile::rows, Tile::columns, y.columns);
  Index tile = blockIdx.x;
  ACopies a_copies(x.data, 0);
  BCopies b_copies(weight, 0);
  const auto copy_step = [&](Index at) {
    if (at < steps) {
      const Index k_left = k_count - at * Tile::inner, columns_left = y.columns - walk.column;
      const auto stage = unsigned(at % Tile::stages);
      a_copies.copy(a_shared + stage * Tile::a_bytes, walk.rows, k_left, x.data);
      a_copies.at += Tile::inner;
      if constexpr (inner_contiguous) {
        b_copies.copy(b_shared + stage * Tile::b_bytes, columns_left, k_left, weight);
        b_copies.at += Tile::inner;
      } else {
        b_copies.copy(b_shared + stage * Tile::b_bytes, k_left, columns_left, weight);
        b_copies.at += Tile::inner * stride;
      }
    }
    end_copies();
  };
  // Looks for the next tile of this block and starts to copy its first steps.
  const auto begin = [&] {
    if (!walk.find(tile)) return false;
    a_copies = ACopies(x.row(walk.first_row - first_row), x.stride);
    b_copies = BCopies(weight + walk.group * step + (inner_contiguous ? walk.column * stride : walk.column), stride);
    for (int at = 0; at < Product::ahead; ++at) copy_step(at);
    tile += gridDim.x;
    return true;
  };

  for (bool more = begin(); more;) {
    const Index tile_row = walk.first_row, tile_column = walk.column;
    const int tile_rows = int(walk.rows);
    const bool busy = Product::busy(tile_rows, y.columns - tile_column);
    Product product;
    for (Index at = 0; at < steps; ++at) {
      wait_copies<Product::ahead - 1>();
      Product::publish();
      __syncthreads();  // step `at` is there for all, and what comes next overwrites has been read by all
      copy_step(at + Product::ahead);
      const auto stage = unsigned(at % Tile::stages);
      if (busy) product.multiply(a_shared + stage * Tile::a_bytes, b_shared + stage * Tile::b_bytes);
    }
    Product::finish();
    wait_copies<0>();
    __syncthreads();  // shared memory is free for the next tile, whose first steps come while this one is written
    more = begin();
    if (!busy) continue;

    const int lane = int(threadIdx.x) % warp_size;
    const bool pairs = y.stride % 2 == 0 && reinterpret_cast<std::uintptr_t>(y.data) % sizeof(float2) == 0;
#pragma unroll
    for (int part = 0; part < 2 * Product::row_parts; ++part) {
      const int row = Product::first_row() + part * 8 + lane / 4;
      if (row >= tile_rows) continue;
      float* const to = y.row(tile_row + row);
#pragma unroll
      for (int j = 0; j < Product::column_parts; ++j) {
        const Index column = tile_column + Product::first_column() + j * 8 + lane % 4 * 2;
        float first = product.sums[part / 2][j][part % 2 * 2], second = product.sums[part / 2][j][part % 2 * 2 + 1];
        if (pairs && column + 1 < y.columns) {
          auto* const pair = reinterpret_cast<float2*>(to + column);
          if (add) {
            first += pair->x;
            second += pair->y;
          }
          *pair = float2{first, second};
        } else {
          if (column < y.columns) to[column] = add ? to[column] + first : first;
          if (column + 1 < y.columns) to[column + 1] = add ? to[column + 1] + second : second;
        }
      }
    }
  }
}

}  // namespace moe_mamba::cuda::detail
