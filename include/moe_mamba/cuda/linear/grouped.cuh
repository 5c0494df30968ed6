#pragma once

#include <algorithm>

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/cuda/common/elements.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/cuda/linear/blas.cuh"
#include "moe_mamba/cuda/linear/factors.cuh"
#include "moe_mamba/cuda/linear/fma_kernels.cuh"
#include "moe_mamba/cuda/linear/result_rows.cuh"
#include "moe_mamba/cuda/linear/tensor_factors.cuh"
#include "moe_mamba/cuda/linear/tensor_kernels.cuh"
#include "moe_mamba/cuda/linear/tensor_tile.cuh"
#include "moe_mamba/cuda/linear/tf32_kernels.cuh"
#include "moe_mamba/cuda/linear/tile_walk.cuh"
#include "moe_mamba/ops/linear.hpp"

/// Launches of grouped products: which kernel, which tile, how many blocks.
namespace moe_mamba::inline v0_2::cuda::detail {

template <class C>
ZeroElement<C> zero_of(MatrixStack<C> stack, Index count) {
  return {matrix(stack.data, count * stack.rows, stack.columns)};
}

/// A grid of a kernel that walks tiles: as many blocks as run at a time, or as there are tiles at most.
inline unsigned walking_blocks(Device& device, Index tiles, int blocks_per_processor) {
  return unsigned(std::min(tiles, Index(device.processors()) * blocks_per_processor));
}

/// Launches a kernel that walks tiles of bfloat16 `factors`. Code for sm_90a has more threads in a block, and factors
/// described.
template <class Tile, class C, class... Parameters, class... Arguments>
void launch_tile_kernel(Device& device, void (*kernel)(Groups, Index, TensorFactors, TensorMaps, Parameters...),
                        Index tiles, Groups groups, Index first, const TensorFactors& factors, Arguments... arguments) {
  constexpr int shared_bytes = Tile::template shared_bytes<C>, all_threads = Tile::threads + Tile::copying_threads;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes),
        "cudaFuncSetAttribute");
  cudaFuncAttributes code;
  check(cudaFuncGetAttributes(&code, kernel), "cudaFuncGetAttributes");
  const bool described = code.maxThreadsPerBlock >= all_threads;
  TensorMaps maps{};
  if (described) maps = tensor_maps(device, factors);
  kernel<<<walking_blocks(device, tiles, Tile::blocks), unsigned(described ? all_threads : Tile::threads), shared_bytes,
           device.stream()>>>(groups, first, factors, maps, static_cast<Parameters>(arguments)...);
  check_launch("a kernel of tensor tiles");
}

/// The same for tiles of TF32.
template <class... Parameters, class... Arguments>
void launch_tf32_kernel(Device& device, void (*kernel)(Parameters...), Index tiles, Arguments... arguments) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Tf32Tile::shared_bytes),
        "cudaFuncSetAttribute");
  kernel<<<walking_blocks(device, tiles, Tf32Tile::blocks), Tf32Tile::threads, Tf32Tile::shared_bytes,
           device.stream()>>>(arguments...);
  check_launch("a kernel of TF32 tiles");
}

/// Whether the device has the shared memory that the larger tiles need.
inline bool fits_large_tiles(const Device& device) {
  return device.shared_bytes() >=
         std::size_t(std::max({WideTile::shared_bytes<float>, WideShortTile::shared_bytes<bfloat16>,
                               MediumTile::shared_bytes<bfloat16>, NarrowTile::shared_bytes<bfloat16>}));
}

/// y = or += x B for rows in groups; B of group g begins at weight + g · step, and what is contiguous in it is the
/// inner index (as in Wᵀ) or, with Along::outer, the columns (as in W).
template <Along along, class S>
void multiply_groups(Device& device, Groups groups, MatrixView<const S> x, const S* weight, Index step, Index stride,
                     const ResultRows<S>& y, Into into) {
  if (x.rows == 0 || y.columns == 0 || groups.count == 0) return;
  if constexpr (std::is_same_v<S, bfloat16>) {
    const bool eights = x.columns > 0 && x.columns % 8 == 0 && (along == Along::inner || y.columns % 8 == 0);
    const MatrixView<const bfloat16> first_weight{weight, along == Along::inner ? y.columns : x.columns,
                                                  along == Along::inner ? x.columns : y.columns, stride};
    if (eights && can_vectorise<8>(weight, stride) && step % 8 == 0) {
      const auto launch = [&](auto tile) {
        using Tile = decltype(tile);
        for_factor_rows<FactorOf::tiles>(device, x, [&](Index first, MatrixView<const bfloat16> factor) {
          const Index tiles = TileWalk::most(factor.rows, groups.count, y.columns, Tile::rows, Tile::columns);
          launch_tile_kernel<Tile, S>(device, grouped_tensor_kernel<Tile, along, S>, tiles, groups, first,
                                      TensorFactors{factor, first_weight, step, groups.count}, y, into);
        });
      };
      // Rows of tiles that there are at least where every group has some, and about how many there are.
      const Index filled = x.rows / TensorStep::rows, part_filled = std::min(x.rows, groups.count);
      const auto tiles = [&](Index rows_of_tiles, int columns) {
        return rows_of_tiles * ceiling_divide<Index>(y.columns, columns);
      };
      // What the processor with most to do has to do.
      const auto longest = [&](int columns) {
        return ceiling_divide<Index>(tiles(filled + part_filled / 2, columns), device.processors()) * columns;
      };
      if (!fits_large_tiles(device)) return launch(PairedTile{});
      if (2 * tiles(std::max(filled, part_filled), WideShortTile::columns) < device.processors())
        return launch(NarrowTile{});
      if (9 * longest(MediumTile::columns) < 8 * longest(WideShortTile::columns)) return launch(MediumTile{});
      return launch(WideShortTile{});
    }
  }
  // Of float factors: the rows.
  const auto are_aligned = [&] {
    return can_vectorise<4>(x.data, x.stride) && can_vectorise<4>(weight, stride) && step % 4 == 0;
  };
  if constexpr (std::is_same_v<S, float>) {
    if (device.products() == FloatProducts::tf32 && are_aligned()) {
      const Index tiles = TileWalk::most(x.rows, groups.count, y.columns, Tf32Tile::side, Tf32Tile::side);
      return launch_tf32_kernel(device, grouped_tf32_kernel<along>, tiles, groups, x, weight, step, stride, y, into);
    }
  }
  using Tile = FmaTile<compute_t<S>>;
  const Index tiles = TileWalk::most(x.rows, groups.count, y.columns, Tile::side, Tile::side);
  const auto launch = [&](auto kernel) {
    kernel<<<walking_blocks(device, tiles, 2), Tile::threads, 0, device.stream()>>>(groups, x, weight, step, stride, y,
                                                                                    into);
    check_launch("grouped_kernel");
  };
  if constexpr (std::is_same_v<S, float>) {
    const bool whole = x.columns % 4 == 0 && (along == Along::inner || y.columns % 4 == 0);
    if (whole && are_aligned()) return launch(grouped_kernel<4, along, S, S>);
  }
  launch(grouped_kernel<1, along, S, S>);
}

/// Into how many chunks the rows of groups are split where the tiles of their matrices alone would leave most of the
/// device without work, and groups have the rows for it on average. Depends on the sizes and the device alone, so that
/// sums do.
template <class Tile>
Index row_splits(const Device& device, Index groups, Index rows, Index matrix_rows, Index matrix_columns) {
  constexpr Index least_rows = 512, most_bytes = Index(Device::scratch_bytes) / 4;
  constexpr Index fewest = 4;  // fewer than this cost more than they bring
  const Index tiles =
      groups * ceiling_divide<Index>(matrix_rows, Tile::rows) * ceiling_divide<Index>(matrix_columns, Tile::columns);
  const Index room = most_bytes / (groups * matrix_rows * matrix_columns * Index(sizeof(float)));
  const Index splits = std::min({device.processors() * Tile::blocks / tiles, rows / groups / least_rows, room});
  return splits < fewest ? 1 : splits;
}

/// dW of each group = or += dyᵀ x over the rows of the group, by tensor cores.
template <class Tile>
void multiply_transposed_tensors(Device& device, Groups groups, MatrixView<const bfloat16> dy,
                                 MatrixView<const bfloat16> x, MatrixStack<float> dweight, Into into) {
  const Index size = dweight.rows * dweight.columns;
  const Index splits = row_splits<Tile>(device, groups.count, x.rows, dweight.rows, dweight.columns);
  const Index reserved = splits == 1 ? 0 : ceiling_divide<Index>(splits * groups.count * size, 64) * 64 * Index{4};
  auto* const partial = reinterpret_cast<float*>(device.scratch() + (Index(Device::scratch_bytes) - reserved));
  for_factor_rows<FactorOf::tiles>(device, dy, x, reserved, [&](Index first, auto dy_rows, auto x_rows) {
    const Index rows = x_rows.rows;
    const Into rows_into = first > 0 ? Into::add : into;
    const Index tiles =
        splits * WeightTileWalk::most(groups.count, dweight.rows, dweight.columns, Tile::rows, Tile::columns);
    const TensorFactors factors{dy_rows, x_rows, rows * x_rows.stride, 1};
    launch_tile_kernel<Tile, float>(device, grouped_weight_tensor_kernel<Tile>, tiles, groups, first, factors, dweight,
                                    splits, partial, rows_into);
    if (splits == 1) return;
    for_elements(device, {groups.count}, size,
                 AddChunksElement{groups, first, first + rows, splits, size, partial, dweight.data, rows_into});
  });
}

/// dW of each group = or += dyᵀ x over the rows of the group.
template <class S>
void multiply_transposed_groups(Device& device, Groups groups, MatrixView<const S> dy, MatrixView<const S> x,
                                MatrixStack<compute_t<S>> dweight, Into into) {
  if (dweight.rows == 0 || dweight.columns == 0 || groups.count == 0) return;
  if (x.rows == 0) {
    if (into == Into::assign) {
      for_elements(device, {groups.count * dweight.rows}, dweight.columns, zero_of(dweight, groups.count));
    }
    return;
  }
  if constexpr (std::is_same_v<S, bfloat16>) {
    if (dweight.columns <= PairedTile::columns || !fits_large_tiles(device))
      return multiply_transposed_tensors<PairedTile>(device, groups, dy, x, dweight, into);
    multiply_transposed_tensors<WideTile>(device, groups, dy, x, dweight, into);
  } else {
    const auto tiles = [&](Index side) {
      return WeightTileWalk::most(groups.count, dweight.rows, dweight.columns, side, side);
    };
    if constexpr (std::is_same_v<S, float>) {
      const bool aligned = can_vectorise<4>(dy.data, dy.stride) && can_vectorise<4>(x.data, x.stride);
      if (device.products() == FloatProducts::tf32 && aligned) {
        return launch_tf32_kernel(device, grouped_weight_tf32_kernel<S>, tiles(Tf32Tile::side), groups, dy, x, dweight,
                                  into);
      }
    }
    using Tile = FmaTile<S>;
    const auto launch = [&](auto kernel) {
      kernel<<<walking_blocks(device, tiles(Tile::side), 2), Tile::threads, 0, device.stream()>>>(groups, dy, x,
                                                                                                  dweight, into);
      check_launch("grouped_weight_kernel");
    };
    if constexpr (std::is_same_v<S, float>) {
      if (can_vectorise<4>(dy) && can_vectorise<4>(x)) return launch(grouped_weight_kernel<4, S>);
    }
    launch(grouped_weight_kernel<1, S>);
  }
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
