#pragma once

#include <algorithm>

#include "moe_mamba/cuda/block/fma_tiles.cuh"
#include "moe_mamba/cuda/block/gemv.cuh"
#include "moe_mamba/cuda/block/rounding.cuh"
#include "moe_mamba/cuda/block/tensor_tiles.cuh"
#include "moe_mamba/cuda/block/tf32_tiles.cuh"
#include "moe_mamba/cuda/pieces.cuh"
#include "moe_mamba/ops/linear.hpp"

/// Matrix products with weights stored [out, in], on a CUDA device; the contract is in ops/linear.hpp.
///
/// One matrix is cuBLAS's work; many are cut into tiles, which as many blocks as the device runs at a time go through,
/// in launches that do not depend on the groups' sizes: the device alone knows them. Results are the same from run to
/// run.
///
/// double is multiplied as double, and float as float unless the device was asked for TF32; as float even then in
/// products of a few rows and in grouped ones of rows that are not aligned to 16 bytes. With bfloat16 weights activations
/// are bfloat16 as well, or are rounded to it first (but in products of a few rows), and all is summed in float. Grouped
/// products with such weights of sizes that 8 does not divide are multiplied as floats, which is slow; gradients of weights
/// take any sizes.
///
/// Grouped products with bfloat16 weights are much faster where code is compiled for sm_90a instead of sm_90.
namespace moe_mamba::cuda {

namespace detail {

/// Products of no more rows than this read weights faster than cuBLAS multiplies; grouped ones, than a tile does.
inline constexpr int few_rows = 4, few_grouped_rows = 8;

template <class T>
inline constexpr cudaDataType_t blas_type = CUDA_R_32F;
template <>
inline constexpr cudaDataType_t blas_type<double> = CUDA_R_64F;
template <>
inline constexpr cudaDataType_t blas_type<bfloat16> = CUDA_R_16BF;

template <class C>
struct ZeroElement {
  MatrixView<C> y;
  __device__ void operator()(Index row, Index column) const { y(row, column) = C{}; }
};

template <class C>
ZeroElement<C> zero_of(MatrixStack<C> stack, Index count) {
  return {matrix(stack.data, count * stack.rows, stack.columns)};
}

/// out (m, n) = or += a b, row by row in memory; a (m, k) and b (k, n) are given transposed where it says so.
template <class T, class C>
void whole_blas_product(Device& device, MatrixView<const T> a, bool a_transposed, MatrixView<const T> b,
                        bool b_transposed, MatrixView<C> out, bool add) {
  using Sum = compute_t<C>;
  const Index inner = a_transposed ? a.rows : a.columns;
  if (out.rows == 0 || out.columns == 0 || (add && inner == 0)) return;
  if (inner == 0) {
    for_elements(device, {out.rows}, out.columns, ZeroElement<C>{out});
    return;
  }
  const Sum one = 1, beta = add ? Sum(1) : Sum(0);
  const bool tf32 = std::is_same_v<T, float> && device.products() == FloatProducts::tf32;
  const cublasComputeType_t compute = sizeof(Sum) == 8 ? CUBLAS_COMPUTE_64F
                                      : tf32           ? CUBLAS_COMPUTE_32F_FAST_TF32
                                                       : CUBLAS_COMPUTE_32F;
  // To cuBLAS, whose matrices lie column by column, each of these is its transpose, and so is their product.
  check(cublasGemmEx_64(device.blas(), b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
                        a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N, out.columns, out.rows, inner, &one, b.data,
                        blas_type<T>, std::max<Index>(b.stride, 1), a.data, blas_type<T>, std::max<Index>(a.stride, 1),
                        &beta, out.data, blas_type<C>, std::max<Index>(out.stride, 1), compute, CUBLAS_GEMM_DEFAULT),
        "cublasGemmEx");
}

/// The same. cuBLAS is several times as slow with bfloat16 where 8 does not divide the columns, the rows where a is
/// transposed, or the inner index where that is contiguous: what is left over of large ones becomes a product of its own.
/// The inner index stays whole where the sum would be rounded in between.
template <class T, class C>
void blas_product(Device& device, MatrixView<const T> a, bool a_transposed, MatrixView<const T> b, bool b_transposed,
                  MatrixView<C> out, bool add) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    constexpr Index eight = 8, large = 1024;
    const auto leaves_some = [](Index extent) { return extent >= large && extent % eight != 0; };
    const Index inner = a_transposed ? a.rows : a.columns;
    if (leaves_some(out.columns)) {
      const auto columns = [&](Index first, Index count) {
        const auto part = b_transposed ? b.row_block(first, count) : b.column_block(first, count);
        blas_product(device, a, a_transposed, part, b_transposed, out.column_block(first, count), add);
      };
      const Index most = out.columns / eight * eight;
      columns(0, most);
      columns(most, out.columns - most);
      return;
    }
    if (a_transposed && leaves_some(out.rows)) {
      const auto rows = [&](Index first, Index count) {
        blas_product(device, a.column_block(first, count), true, b, b_transposed, out.row_block(first, count), add);
      };
      const Index most = out.rows / eight * eight;
      rows(0, most);
      rows(most, out.rows - most);
      return;
    }
    if (std::is_same_v<C, float> && (!a_transposed || b_transposed) && leaves_some(inner)) {
      const auto along = [&](Index first, Index count, bool adding) {
        const auto a_part = a_transposed ? a.row_block(first, count) : a.column_block(first, count);
        const auto b_part = b_transposed ? b.column_block(first, count) : b.row_block(first, count);
        whole_blas_product(device, a_part, a_transposed, b_part, b_transposed, out, adding);
      };
      const Index most = inner / eight * eight;
      along(0, most, add);
      along(most, inner - most, true);
      return;
    }
  }
  whole_blas_product(device, a, a_transposed, b, b_transposed, out, add);
}

/// out = or += a W or a Wᵀ, in as many rows at a time as fit converted into the scratch memory where a is not of W's type.
template <class X, class S, class C>
void multiply_by_weight(Device& device, MatrixView<const X> a, MatrixView<const S> weight, bool transposed,
                        MatrixView<C> out, bool add) {
  if constexpr (std::is_same_v<X, S>) {
    blas_product(device, a, false, weight, transposed, out, add);
  } else {
    for_factor_rows<FactorOf::blas>(device, a, [&](Index first, MatrixView<const bfloat16> factor) {
      blas_product(device, factor, false, weight, transposed, out.row_block(first, factor.rows), add);
    });
  }
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
/// inner index (as in Wᵀ) or, where not `inner_contiguous`, the columns (as in W).
template <bool inner_contiguous, class S>
void multiply_groups(Device& device, Groups groups, MatrixView<const S> x, const S* weight, Index step, Index stride,
                     MatrixView<S> y, bool add) {
  if (y.rows == 0 || y.columns == 0 || groups.count == 0) return;
  if constexpr (std::is_same_v<S, bfloat16>) {
    const bool eights = x.columns > 0 && x.columns % 8 == 0 && (inner_contiguous || y.columns % 8 == 0);
    const MatrixView<const bfloat16> first_weight{weight, inner_contiguous ? y.columns : x.columns,
                                                  inner_contiguous ? x.columns : y.columns, stride};
    if (eights && aligned_to_16(weight, stride) && step % 8 == 0) {
      const auto launch = [&](auto tile) {
        using Tile = decltype(tile);
        for_factor_rows<FactorOf::tiles>(device, x, [&](Index first, MatrixView<const bfloat16> factor) {
          const Index tiles = TileWalk::most(factor.rows, groups.count, y.columns, Tile::rows, Tile::columns);
          launch_tile_kernel<Tile, S>(device, grouped_tensor_kernel<Tile, inner_contiguous, S>, tiles, groups, first,
                                      TensorFactors{factor, first_weight, step, groups.count}, y, add);
        });
      };
      // Rows of tiles that there are at least where every group has some, and about how many there are.
      const Index filled = y.rows / TensorStep::rows, part_filled = std::min(y.rows, groups.count);
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
  if constexpr (std::is_same_v<S, float>) {
    const bool aligned = aligned_to_16(x.data, x.stride) && aligned_to_16(weight, stride) && step % 4 == 0;
    if (device.products() == FloatProducts::tf32 && aligned) {
      const Index tiles = TileWalk::most(y.rows, groups.count, y.columns, Tf32Tile::side, Tf32Tile::side);
      return launch_tf32_kernel(device, grouped_tf32_kernel<inner_contiguous>, tiles, groups, x, weight, step, stride,
                                y, add);
    }
  }
  using Tile = FmaTile<compute_t<S>>;
  const Index tiles = TileWalk::most(y.rows, groups.count, y.columns, Tile::side, Tile::side);
  grouped_kernel<inner_contiguous><<<walking_blocks(device, tiles, 2), Tile::threads, 0, device.stream()>>>(
      groups, x, weight, step, stride, y, add);
  check_launch("grouped_kernel");
}

/// Into how many pieces the rows of groups are split where the tiles of their matrices alone would leave most of the
/// device without work, and groups have the rows for it on average. Depends on the sizes and the device alone, so that sums
/// do.
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
                                 MatrixView<const bfloat16> x, MatrixStack<float> dweight, bool add) {
  const Index size = dweight.rows * dweight.columns;
  const Index splits = row_splits<Tile>(device, groups.count, x.rows, dweight.rows, dweight.columns);
  const Index reserved = splits == 1 ? 0 : ceiling_divide<Index>(splits * groups.count * size, 64) * 64 * Index{4};
  auto* const partial = reinterpret_cast<float*>(device.scratch() + (Index(Device::scratch_bytes) - reserved));
  for_factor_rows<FactorOf::tiles>(device, dy, x, reserved, [&](Index first, auto dy_rows, auto x_rows) {
    const Index rows = x_rows.rows;
    const bool adds = add || first > 0;
    const Index tiles =
        splits * WeightTileWalk::most(groups.count, dweight.rows, dweight.columns, Tile::rows, Tile::columns);
    const TensorFactors factors{dy_rows, x_rows, rows * x_rows.stride, 1};
    launch_tile_kernel<Tile, float>(device, grouped_weight_tensor_kernel<Tile>, tiles, groups, first, factors, dweight,
                                    splits, partial, adds);
    if (splits == 1) return;
    for_elements(device, {groups.count}, size,
                 AddPiecesElement{groups, first, first + rows, splits, size, partial, dweight.data, adds});
  });
}

/// dW of each group = or += dyᵀ x over the rows of the group.
template <class S>
void multiply_transposed_groups(Device& device, Groups groups, MatrixView<const S> dy, MatrixView<const S> x,
                                MatrixStack<compute_t<S>> dweight, bool add) {
  if (dweight.rows == 0 || dweight.columns == 0 || groups.count == 0) return;
  if (x.rows == 0) {
    if (!add) for_elements(device, {groups.count * dweight.rows}, dweight.columns, zero_of(dweight, groups.count));
    return;
  }
  if constexpr (std::is_same_v<S, bfloat16>) {
    if (dweight.columns <= PairedTile::columns || !fits_large_tiles(device))
      return multiply_transposed_tensors<PairedTile>(device, groups, dy, x, dweight, add);
    multiply_transposed_tensors<WideTile>(device, groups, dy, x, dweight, add);
  } else {
    const auto tiles = [&](Index side) {
      return WeightTileWalk::most(groups.count, dweight.rows, dweight.columns, side, side);
    };
    if constexpr (std::is_same_v<S, float>) {
      const bool aligned = aligned_to_16(dy.data, dy.stride) && aligned_to_16(x.data, x.stride);
      if (device.products() == FloatProducts::tf32 && aligned) {
        return launch_tf32_kernel(device, grouped_weight_tf32_kernel<S>, tiles(Tf32Tile::side), groups, dy, x, dweight,
                                  add);
      }
    }
    using Tile = FmaTile<S>;
    const unsigned blocks = walking_blocks(device, tiles(Tile::side), 2);
    grouped_weight_kernel<<<blocks, Tile::threads, 0, device.stream()>>>(groups, dy, x, dweight, add);
    check_launch("grouped_weight_kernel");
  }
}

template <class C, class S>
struct AddBiasElement {
  const S* bias;
  MatrixView<C> y;
  __device__ void operator()(Index row, Index column) const {
    using T = compute_t<C>;
    y(row, column) = static_cast<C>(static_cast<T>(y(row, column)) + static_cast<T>(bias[column]));
  }
};

template <class C>
struct PlainColumn {
  MatrixView<const C> dy;
  __device__ void operator()(Index row, Index column, double (&sums)[1]) const { sums[0] += double(dy(row, column)); }
};

}  // namespace detail

/// y = x Wᵀ
template <class X, StorageScalar C, StorageScalar S>
void linear(Device& device, MatrixView<X> x, MatrixView<const S> weight, MatrixView<C> y) {
  if (y.rows == 0 || y.columns == 0) return;
  const MatrixView<const X> from = x;
  if (y.rows == 1) {
    detail::gemv<1>(device, Groups{}, from, weight.data, 0, weight.stride, y);
  } else if (y.rows <= detail::few_rows) {
    detail::gemv<detail::few_rows>(device, Groups{}, from, weight.data, 0, weight.stride, y);
  } else {
    detail::multiply_by_weight(device, from, weight, true, y, false);
  }
}

/// dx = or += dy W
template <class Y, StorageScalar C, StorageScalar S>
void linear_backward_input(Device& device, MatrixView<Y> dy, MatrixView<const S> weight, MatrixView<C> dx, Into into) {
  detail::multiply_by_weight(device, MatrixView<const Y>(dy), weight, false, dx, into == Into::add);
}

/// dW += dyᵀ x
template <StorageScalar S, class Y, class X, ComputeScalar C>
void linear_backward_weight(Device& device, MatrixView<Y> dy, MatrixView<X> x, MatrixView<C> dweight) {
  if constexpr (std::is_same_v<S, bfloat16>) {
    detail::for_factor_rows<detail::FactorOf::blas>(device, dy, x, 0, [&](Index, auto dy_rows, auto x_rows) {
      detail::blas_product(device, dy_rows, true, x_rows, false, dweight, true);
    });
  } else {
    detail::blas_product(device, MatrixView<const C>(dy), true, MatrixView<const C>(x), false, dweight, true);
  }
}

/// y = x Wᵀ, row by row with the matrix of its group; activations are of the weights' type
template <StorageScalar S>
void grouped_linear(Device& device, Groups groups, Input<S> x, MatrixStack<const S> weight, MatrixView<S> y) {
  const Index step = weight.rows * weight.columns;
  if (y.rows > detail::few_grouped_rows) {
    detail::multiply_groups<true>(device, groups, x, weight.data, step, weight.columns, y, false);
  } else if (y.rows > 0 && y.columns > 0 && groups.count > 0) {
    detail::gemv<1>(device, groups, x, weight.data, step, weight.columns, y);
  }
}

/// dx = or += dy W, row by row with the matrix of its group
template <StorageScalar S>
void grouped_linear_backward_input(Device& device, Groups groups, Input<S> dy, MatrixStack<const S> weight,
                                   MatrixView<S> dx, Into into) {
  detail::multiply_groups<false>(device, groups, dy, weight.data, weight.rows * weight.columns, weight.columns, dx,
                                 into == Into::add);
}

/// dW of each group = or += dyᵀ x over the rows of the group, in their order
template <StorageScalar S>
void grouped_linear_backward_weight(Device& device, Groups groups, Input<S> dy, Input<S> x,
                                    MatrixStack<compute_t<S>> dweight, Into into) {
  detail::multiply_transposed_groups<S>(device, groups, dy, x, dweight, into == Into::add);
}

/// y += bias, for each row
template <StorageScalar C, StorageScalar S>
void add_bias(Device& device, const S* bias, MatrixView<C> y) {
  detail::for_elements(device, {y.rows}, y.columns, detail::AddBiasElement<C, S>{bias, y});
}

/// dbias += the sum of dy's rows, in double
template <class Y, ComputeScalar C>
void bias_backward(Device& device, MatrixView<Y> dy, C* dbias) {
  detail::sum_columns<1>(device, dy.rows, dy.columns, detail::PlainColumn<std::remove_const_t<Y>>{dy},
                         detail::AddColumnSums<C, 1>{{dbias}}, Arena(device.scratch()));
}

}  // namespace moe_mamba::cuda
