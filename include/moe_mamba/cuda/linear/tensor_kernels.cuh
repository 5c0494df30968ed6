#pragma once

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/cuda/linear/result_rows.cuh"
#include "moe_mamba/cuda/linear/tensor_factors.cuh"
#include "moe_mamba/cuda/linear/tensor_pipeline.cuh"
#include "moe_mamba/cuda/linear/tile_walk.cuh"
#include "moe_mamba/cuda/linear/warpgroup_pipeline.cuh"
#include "moe_mamba/ops/linear.hpp"

/// Grouped products of bfloat16 factors on tensor cores, summed in float: y = x Wᵀ or dy W over the rows of each group,
/// and dW = dyᵀ x of each group. A tile is 128 rows by up to 256 columns of a product; the inner dimension goes by in
/// steps of 64, of which shared memory holds several stages:
///
///   for each tile of the block, found from the groups' offsets:
///     for each step k:
///       copy step k + stages - 1 of both factors → shared memory, asynchronously
///       wait for step k;  sums += a[k] b[k] on tensor cores
///     epilogue: write the sums, or add them, while the first steps of the next tile are copied
///
/// In code for sm_90a a producer thread finds tiles and has the tensor memory accelerator copy their steps, and two
/// consumer warpgroups multiply (WarpgroupPipeline); other code copies and multiplies in turn (TensorPipeline).
namespace moe_mamba::inline v0_2::cuda::detail {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
template <class Tile, Along a_along, Along b_along, class C>
using TilePipeline = WarpgroupPipeline<Tile, a_along, b_along, C>;
#else
template <class Tile, Along a_along, Along b_along, class C>
using TilePipeline = TensorPipeline<Tile, a_along, b_along, C>;
#endif

/// y = or += x B for rows in groups, as grouped_kernel; a of `factors` is x, which holds the rows of all groups from
/// `first_row` on. Needs rows of x and weights that are aligned to 16 bytes, and sizes along them that 8 divides.
/// `maps` describe the factors, in code that has use for them.
template <class Tile, Along along, class C>
__global__ void __launch_bounds__(TilePipeline<Tile, Along::inner, along, C>::threads, Tile::blocks)
    grouped_tensor_kernel(Groups groups, Index first_row, const __grid_constant__ TensorFactors factors,
                          const __grid_constant__ TensorMaps maps, ResultRows<C> y, Into into) {
  using Pipeline = TilePipeline<Tile, Along::inner, along, C>;
  extern __shared__ uint4 shared_words[];
  TileWalk walk(groups, first_row, factors.a.rows, Tile::rows, Tile::columns, y.columns);
  Index tile = blockIdx.x;
  Pipeline pipeline(shared_words, factors, maps);
  const auto next = [&](typename Pipeline::Source& source) {
    if (!walk.find(tile)) return false;
    const ResultRows<C> out = y.row_block(walk.first_row, walk.rows);
    source = {.row = walk.first_row - first_row,
              .column = walk.column,
              .k = 0,
              .group = walk.group,
              .rows = walk.rows,
              .columns = y.columns - walk.column,
              .k_count = factors.a.columns,
              .out = out.data + walk.column,
              .places = out.places};
    tile += gridDim.x;
    return true;
  };
  pipeline.run(next, y.stride, into);
}

/// dweight of each group = or += dyᵀ x over those of its rows that dy and x, which are a and b of `factors`, hold: the
/// rows of all groups from `first_row` on, aligned to 16 bytes. The sums of a tile run over its rows in their order.
/// With more than one of `splits`, those of each chunk of a group's rows become a matrix of their own: chunk p of group
/// g the one of number p · groups + g in `partial`.
template <class Tile>
__global__ void __launch_bounds__(TilePipeline<Tile, Along::outer, Along::outer, float>::threads, Tile::blocks)
    grouped_weight_tensor_kernel(Groups groups, Index first_row, const __grid_constant__ TensorFactors factors,
                                 const __grid_constant__ TensorMaps maps, MatrixStack<float> dweight, Index splits,
                                 float* partial, Into into) {
  using Pipeline = TilePipeline<Tile, Along::outer, Along::outer, float>;
  extern __shared__ uint4 shared_words[];
  WeightTileWalk walk(groups, first_row, factors.b.rows, splits, splits == 1 && into == Into::assign, Tile::rows,
                      Tile::columns, dweight.rows, dweight.columns);
  Index tile = blockIdx.x;
  Pipeline pipeline(shared_words, factors, maps);
  const auto next = [&](typename Pipeline::Source& source) {
    if (!walk.find(tile)) return false;
    const Index number = splits == 1 ? walk.group : walk.chunk * groups.count + walk.group;
    float* const matrix = (splits == 1 ? dweight.data : partial) + number * dweight.rows * dweight.columns;
    source = {.row = walk.row,
              .column = walk.column,
              .k = walk.first_row - first_row,
              .group = 0,
              .rows = dweight.rows - walk.row,
              .columns = dweight.columns - walk.column,
              .k_count = walk.rows,
              .out = matrix + walk.row * dweight.columns + walk.column,
              .places = nullptr};
    tile += gridDim.x;
    return true;
  };
  pipeline.run(next, dweight.columns, splits == 1 ? into : Into::assign);
}

/// Adds up the sums over the chunks of each group's rows, chunk after chunk, into its matrix.
struct AddChunksElement {
  Groups groups;
  Index first_row, end_row, splits, size;  // rows that were looked at; elements of a matrix
  const float* partial;
  float* dweight;
  Into into;
  __device__ void operator()(Index group, Index element) const {
    const Index rows = min(groups.offsets[group + 1], end_row) - max(groups.offsets[group], first_row);
    float& result = dweight[group * size + element];
    if (rows <= 0) {
      if (into == Into::assign) result = 0;
      return;
    }
    const Index chunks = RowSplit(rows, splits).chunks();
    float sum = partial[group * size + element];
    for (Index p = 1; p < chunks; ++p) sum += partial[(p * groups.count + group) * size + element];
    result = into == Into::add ? result + sum : sum;
  }
};

}  // namespace moe_mamba::inline v0_2::cuda::detail
