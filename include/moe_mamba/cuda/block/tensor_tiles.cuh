#pragma once

#include "moe_mamba/cuda/block/tensor_pipeline.cuh"
#include "moe_mamba/cuda/block/tiles.cuh"

/// Grouped products of bfloat16 factors, summed in float, on tensor cores.
namespace moe_mamba::cuda::detail {

/// y = or += x B for rows in groups, as grouped_kernel; x holds the rows of all groups from `first_row` on. Needs rows
/// of x and weights that are aligned to 16 bytes, and sizes along them that 8 divides.
template <bool inner_contiguous>
__global__ void __launch_bounds__(TensorTile::threads, 1)
    grouped_tensor_kernel(Groups groups, Index first_row, MatrixView<const bfloat16> x, const bfloat16* weight,
                          Index step, Index stride, MatrixView<float> y, bool add) {
  using Pipeline = TensorPipeline<true, inner_contiguous>;
  using Product = typename Pipeline::Product;
  extern __shared__ uint4 shared_words[];
  Pipeline pipeline(shared_words);
  TileWalk walk(groups, first_row, x.rows, TensorTile::rows, TensorTile::columns, y.columns);
  Index tile = blockIdx.x;
  // Looks for the next tile of this block and starts to copy its first steps.
  const auto begin = [&] {
    if (!walk.find(tile)) return false;
    const Index at = inner_contiguous ? walk.column * stride : walk.column;
    pipeline.begin(x.row(walk.first_row - first_row), x.stride, walk.rows, weight + walk.group * step + at, stride,
                   y.columns - walk.column, x.columns);
    tile += gridDim.x;
    return true;
  };
  for (bool more = begin(); more;) {
    const auto out = y.row_block(walk.first_row, walk.rows).column_block(walk.column, y.columns - walk.column);
    const bool busy = Product::busy(int(out.rows), out.columns);
    Product product;
    pipeline.multiply(product, busy);
    more = begin();  // shared memory is free: the next tile's first steps come while this one is written
    if (busy) write_sums(product, out, add);
  }
}

/// Brings what sums will be added to near, a tile of it from its first row and column on.
__device__ inline void prefetch_tile(MatrixView<float> out) {
  constexpr int run = 32 / int(sizeof(float));  // what the device reads at least
  static_assert(run * warp_size == TensorTile::columns);
  const int column = int(threadIdx.x) % warp_size * run;
  if (column >= out.columns) return;
  const int rows = int(min(out.rows, Index{TensorTile::rows}));
  for (int row = int(threadIdx.x) / warp_size; row < rows; row += TensorTile::threads / warp_size) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(out.row(row) + column));
  }
}

/// dweight of each group += dyᵀ x over those of its rows that dy and x hold: the rows of all groups from `first_row` on,
/// aligned to 16 bytes. The sums of a tile run over its rows in their order. Gradients are read while the tile before is
/// multiplied: with few rows to a group they are most of what has to be moved.
template <class C>
__global__ void __launch_bounds__(TensorTile::threads, 1)
    grouped_weight_tensor_kernel(Groups groups, Index first_row, MatrixView<const bfloat16> dy,
                                 MatrixView<const bfloat16> x, MatrixStack<C> dweight) {
  using Pipeline = TensorPipeline<false, false>;
  using Product = typename Pipeline::Product;
  extern __shared__ uint4 shared_words[];
  Pipeline pipeline(shared_words);
  WeightTileWalk walk(groups, first_row, x.rows, TensorTile::rows, TensorTile::columns, dweight.rows, dweight.columns);
  Index tile = blockIdx.x;
  MatrixView<float> out, next;
  const auto begin = [&] {
    if (!walk.find(tile)) return false;
    const Index rows = dweight.rows - walk.row, columns = dweight.columns - walk.column;
    pipeline.begin(dy.row(walk.first_row - first_row) + walk.row, dy.stride, rows,
                   x.row(walk.first_row - first_row) + walk.column, x.stride, columns, walk.rows);
    const Index at = walk.group * dweight.rows * dweight.columns + walk.row * dweight.columns + walk.column;
    next = {dweight.data + at, rows, columns, dweight.columns};
    prefetch_tile(next);
    tile += gridDim.x;
    return true;
  };
  for (bool more = begin(); more;) {
    out = next;
    const bool busy = Product::busy(int(min(out.rows, Index{TensorTile::rows})), out.columns);
    Product product;
    pipeline.multiply(product, busy);
    more = begin();
    if (busy) write_sums(product, out, true);
  }
}

}  // namespace moe_mamba::cuda::detail
