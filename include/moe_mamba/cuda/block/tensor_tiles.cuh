#pragma once

#include "moe_mamba/cuda/block/tensor_pipeline.cuh"
#include "moe_mamba/cuda/block/tiles.cuh"
#include "moe_mamba/cuda/block/write_sums.cuh"

/// Grouped products of bfloat16 factors, summed in float, on tensor cores.
namespace moe_mamba::cuda::detail {

/// y = or += x B for rows in groups, as grouped_kernel; x holds the rows of all groups from `first_row` on. Needs rows
/// of x and weights that are aligned to 16 bytes, and sizes along them that 8 divides.
template <class Tile, bool inner_contiguous, class C>
__global__ void __launch_bounds__(Tile::threads, Tile::blocks)
    grouped_tensor_kernel(Groups groups, Index first_row, MatrixView<const bfloat16> x, const bfloat16* weight,
                          Index step, Index stride, MatrixView<C> y, bool add) {
  using Pipeline = TensorPipeline<Tile, true, inner_contiguous>;
  using Product = typename Pipeline::Product;
  extern __shared__ uint4 shared_words[];
  Pipeline pipeline(shared_words);
  TileWalk walk(groups, first_row, x.rows, Tile::rows, Tile::columns, y.columns);
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
    const bool busy = Product::busy(out.rows, out.columns);
    Product product;
    pipeline.multiply(product, busy);
    more = begin();  // shared memory is free: the next tile's first steps come while this one is written
    if (busy) write_sums(product, out, add);
  }
}

/// dweight of each group = or += dyᵀ x over those of its rows that dy and x hold: the rows of all groups from `first_row` on,
/// aligned to 16 bytes. The sums of a tile run over its rows in their order. With more than one of `splits`, those of each
/// piece of a group's rows become a matrix of their own: piece p of group g the one of number p · groups + g in `partial`.
template <class Tile>
__global__ void __launch_bounds__(Tile::threads, Tile::blocks)
    grouped_weight_tensor_kernel(Groups groups, Index first_row, MatrixView<const bfloat16> dy,
                                 MatrixView<const bfloat16> x, MatrixStack<float> dweight, Index splits, float* partial,
                                 bool add) {
  using Pipeline = TensorPipeline<Tile, false, false>;
  using Product = typename Pipeline::Product;
  extern __shared__ uint4 shared_words[];
  Pipeline pipeline(shared_words);
  WeightTileWalk walk(groups, first_row, x.rows, splits, splits == 1 && !add, Tile::rows, Tile::columns, dweight.rows,
                      dweight.columns);
  Index tile = blockIdx.x;
  const auto begin = [&] {
    if (!walk.find(tile)) return false;
    const Index row = walk.first_row - first_row;
    pipeline.begin(dy.row(row) + walk.row, dy.stride, dweight.rows - walk.row, x.row(row) + walk.column, x.stride,
                   dweight.columns - walk.column, walk.rows);
    tile += gridDim.x;
    return true;
  };
  for (bool more = begin(); more;) {
    const Index number = splits == 1 ? walk.group : walk.piece * groups.count + walk.group;
    float* const matrix = (splits == 1 ? dweight.data : partial) + number * dweight.rows * dweight.columns;
    const MatrixView<float> out{matrix + walk.row * dweight.columns + walk.column, dweight.rows - walk.row,
                                dweight.columns - walk.column, dweight.columns};
    const bool busy = Product::busy(out.rows, out.columns);
    Product product;
    pipeline.multiply(product, busy);
    more = begin();
    if (busy) write_sums(product, out, splits == 1 && add);
  }
}

/// Adds up the sums over the pieces of each group's rows, piece after piece, into its matrix.
struct AddPiecesElement {
  Groups groups;
  Index first_row, end_row, splits, size;  // rows that were looked at; elements of a matrix
  const float* partial;
  float* dweight;
  bool add;
  __device__ void operator()(Index group, Index element) const {
    const Index rows = min(groups.offsets[group + 1], end_row) - max(groups.offsets[group], first_row);
    float& result = dweight[group * size + element];
    if (rows <= 0) {
      if (!add) result = 0;
      return;
    }
    const Index pieces = RowSplit(rows, splits).pieces();
    float sum = partial[group * size + element];
    for (Index p = 1; p < pieces; ++p) sum += partial[(p * groups.count + group) * size + element];
    result = add ? result + sum : sum;
  }
};

}  // namespace moe_mamba::cuda::detail
