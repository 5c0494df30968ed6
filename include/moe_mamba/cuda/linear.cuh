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
/// products of a few rows and in grouped ones of rows that are not aligned to 16 bytes. With bfloat16 weights, activations
/// and gradients are rounded to bfloat16 first and the products summed in float, but for products of a few rows and for
/// grouped ones with weights of sizes that 8 does not divide, which round nothing and are slow. Gradients of bfloat16
/// weights are products of such rounded factors, whatever their sizes.
///
/// Grouped products with bfloat16 weights run half as fast again where code is compiled for sm_90a instead of sm_90.
namespace moe_mamba::cuda {

namespace detail {

/// Products of no more rows than this read weights faster than cuBLAS multiplies; grouped ones, than a tile does.
inline constexpr int few_rows = 4, few_grouped_rows = 8;

/// Gradients of groups that have fewer rows than this on average take tiles that overlap writing with multiplying.
inline constexpr Index paired_rows = 2048;

template <class T>
inline constexpr cudaDataType_t blas_type = CUDA_R_32F;
template <>
inline constexpr cudaDataType_t blas_type<double> = CUDA_R_64F;
template <>
inline constexpr cudaDataType_t blas_type<bfloat16> = CUDA_R_16BF;

template <class C>
struct ZeroElement {
  MatrixView<C> y;
  __device__ void operator()(Index row, Index column) const { y(row, column) = C(0); }
};

/// out (m, n) = or += a b, row by row in memory; a (m, k) and b (k, n) are given transposed where it says so.
template <class T, class C>
void blas_product(Device& device, MatrixView<const T> a, bool a_transposed, MatrixView<const T> b, bool b_transposed,
                  MatrixView<C> out, bool add) {
  const Index inner = a_transposed ? a.rows : a.columns;
  if (out.rows == 0 || out.columns == 0 || (add && inner == 0)) return;
  if (inner == 0) {
    for_elements(device, {out.rows}, out.columns, ZeroElement<C>{out});
    return;
  }
  const C one = 1, beta = add ? C(1) : C(0);
  const bool tf32 = std::is_same_v<T, float> && device.products() == FloatProducts::tf32;
  const cublasComputeType_t compute = sizeof(C) == 8 ? CUBLAS_COMPUTE_64F
                                      : tf32         ? CUBLAS_COMPUTE_32F_FAST_TF32
                                                     : CUBLAS_COMPUTE_32F;
  // To cuBLAS, whose matrices lie column by column, each of these is its transpose, and so is their product.
  check(cublasGemmEx_64(device.blas(), b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
                        a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N, out.columns, out.rows, inner, &one, b.data,
                        blas_type<T>, std::max<Index>(b.stride, 1), a.data, blas_type<T>, std::max<Index>(a.stride, 1),
                        &beta, out.data, blas_type<C>, std::max<Index>(out.stride, 1), compute, CUBLAS_GEMM_DEFAULT),
        "cublasGemmEx");
}

/// out = or += a W or a Wᵀ, in as many rows at a time as fit converted into the scratch memory where W is bfloat16.
template <class C, class S>
void multiply_by_weight(Device& device, MatrixView<const C> a, MatrixView<const S> weight, bool transposed,
                        MatrixView<C> out, bool add) {
  if constexpr (std::is_same_v<C, S>) {
    blas_product(device, a, false, weight, transposed, out, add);
  } else {
    for_rounded_rows(device, a, [&](Index first, MatrixView<const bfloat16> rounded) {
      blas_product(device, rounded, false, weight, transposed, out.row_block(first, rounded.rows), add);
    });
  }
}

/// A grid of a kernel that walks tiles: as many blocks as run at a time, or as there are tiles at most.
inline unsigned walking_blocks(Device& device, Index tiles, int blocks_per_processor) {
  return unsigned(std::min(tiles, Index(device.processors()) * blocks_per_processor));
}

/// Launches a kernel that walks tiles of tensor cores.
template <class Tile, class... Parameters, class... Arguments>
void launch_tensor_kernel(Device& device, void (*kernel)(Parameters...), Index tiles, Arguments... arguments) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::shared_bytes),
        "cudaFuncSetAttribute");
  kernel<<<walking_blocks(device, tiles, Tile::blocks), Tile::threads, Tile::shared_bytes, device.stream()>>>(
      arguments...);
  check_launch("a kernel of tensor tiles");
}

/// Whether the device has the shared memory that the larger tiles need.
inline bool fits_large_tiles() {
  int index = 0, bytes = 0;
  check(cudaGetDevice(&index), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, index), "cudaDeviceGetAttribute");
  return bytes >= std::max(WideTile::shared_bytes, NarrowTile::shared_bytes);
}

/// y = or += x B for rows in groups; B of group g begins at weight + g · step, and what is contiguous in it is the
/// inner index (as in Wᵀ) or, where not `inner_contiguous`, the columns (as in W).
template <bool inner_contiguous, class C, class S>
void multiply_groups(Device& device, Groups groups, MatrixView<const C> x, const S* weight, Index step, Index stride,
                     MatrixView<C> y, bool add) {
  if (y.rows == 0 || y.columns == 0 || groups.count == 0) return;
  if constexpr (std::is_same_v<S, bfloat16>) {
    const bool eights = x.columns % 8 == 0 && (inner_contiguous || y.columns % 8 == 0);
    if (eights && aligned_to_16(weight, stride) && step % 8 == 0) {
      const auto launch = [&](auto tile) {
        using Tile = decltype(tile);
        for_rounded_rows(device, x, [&](Index first, MatrixView<const bfloat16> rounded) {
          const Index tiles = TileWalk::most(rounded.rows, groups.count, y.columns, Tile::rows, Tile::columns);
          launch_tensor_kernel<Tile>(device, grouped_tensor_kernel<Tile, inner_contiguous>, tiles, groups, first,
                                     rounded, weight, step, stride, y, add);
        });
      };
      // Tiles that there are at least where every group has rows.
      const Index wide_tiles = std::max(y.rows / WideTile::rows, std::min(y.rows, groups.count)) *
                               ceiling_divide<Index>(y.columns, WideTile::columns);
      if (!fits_large_tiles()) return launch(PairedTile{});
      if (2 * wide_tiles < device.processors()) return launch(NarrowTile{});
      return launch(WideTile{});
    }
  }
  if constexpr (std::is_same_v<S, float>) {
    const bool aligned = aligned_to_16(x.data, x.stride) && aligned_to_16(weight, stride) && step % 4 == 0;
    if (device.products() == FloatProducts::tf32 && aligned) {
      const Index tiles = TileWalk::most(y.rows, groups.count, y.columns, Tf32Tile::side, Tf32Tile::side);
      return launch_tensor_kernel<Tf32Tile>(device, grouped_tf32_kernel<inner_contiguous>, tiles, groups, x, weight,
                                            step, stride, y, add);
    }
  }
  using Tile = FmaTile<C>;
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

/// dW of each group += dyᵀ x over the rows of the group, rounded to bfloat16.
template <class Tile>
void multiply_transposed_rounded(Device& device, Groups groups, MatrixView<const float> dy, MatrixView<const float> x,
                                 MatrixStack<float> dweight) {
  const Index size = dweight.rows * dweight.columns;
  const Index splits = row_splits<Tile>(device, groups.count, x.rows, dweight.rows, dweight.columns);
  const Index reserved = splits == 1 ? 0 : ceiling_divide<Index>(splits * groups.count * size, 64) * 64 * Index{4};
  auto* const partial = reinterpret_cast<float*>(device.scratch() + (Index(Device::scratch_bytes) - reserved));
  for_rounded_rows(device, dy, x, reserved, [&](Index first, MatrixView<const bfloat16> dy_rounded, auto x_rounded) {
    const Index rows = x_rounded.rows;
    const Index tiles =
        splits * WeightTileWalk::most(rows, groups.count, dweight.rows, dweight.columns, Tile::rows, Tile::columns);
    launch_tensor_kernel<Tile>(device, grouped_weight_tensor_kernel<Tile>, tiles, groups, first, dy_rounded, x_rounded,
                               dweight, splits, partial);
    if (splits == 1) return;
    for_elements(device, {groups.count}, size,
                 AddPiecesElement{groups, first, first + rows, splits, size, partial, dweight.data});
  });
}

/// dW of each group += dyᵀ x over the rows of the group, rounded to S where that is bfloat16.
template <class S, class C>
void multiply_transposed_groups(Device& device, Groups groups, MatrixView<const C> dy, MatrixView<const C> x,
                                MatrixStack<C> dweight) {
  if (dweight.rows == 0 || dweight.columns == 0 || x.rows == 0 || groups.count == 0) return;
  if constexpr (std::is_same_v<S, bfloat16>) {
    // Of few rows, little is multiplied for what is written.
    const bool paired = x.rows < paired_rows * groups.count || dweight.columns <= PairedTile::columns;
    if (paired || !fits_large_tiles()) return multiply_transposed_rounded<PairedTile>(device, groups, dy, x, dweight);
    multiply_transposed_rounded<WideTile>(device, groups, dy, x, dweight);
  } else {
    const auto tiles = [&](Index side) {
      return WeightTileWalk::most(x.rows, groups.count, dweight.rows, dweight.columns, side, side);
    };
    if constexpr (std::is_same_v<S, float>) {
      const bool aligned = aligned_to_16(dy.data, dy.stride) && aligned_to_16(x.data, x.stride);
      if (device.products() == FloatProducts::tf32 && aligned) {
        return launch_tensor_kernel<Tf32Tile>(device, grouped_weight_tf32_kernel<C>, tiles(Tf32Tile::side), groups, dy,
                                              x, dweight);
      }
    }
    using Tile = FmaTile<C>;
    const unsigned blocks = walking_blocks(device, tiles(Tile::side), 2);
    grouped_weight_kernel<<<blocks, Tile::threads, 0, device.stream()>>>(groups, dy, x, dweight);
    check_launch("grouped_weight_kernel");
  }
}

template <class C, class S>
struct AddBiasElement {
  const S* bias;
  MatrixView<C> y;
  __device__ void operator()(Index row, Index column) const { y(row, column) += static_cast<C>(bias[column]); }
};

template <class C>
struct PlainColumn {
  MatrixView<const C> dy;
  __device__ void operator()(Index row, Index column, double (&sums)[1]) const { sums[0] += double(dy(row, column)); }
};

}  // namespace detail

/// y = x Wᵀ
template <ComputeScalar C, StorageScalar S>
void linear(Device& device, Input<C> x, MatrixView<const S> weight, MatrixView<C> y) {
  if (y.rows == 0 || y.columns == 0) return;
  if (y.rows == 1) {
    detail::gemv<1>(device, Groups{}, x, weight.data, 0, weight.stride, y);
  } else if (y.rows <= detail::few_rows) {
    detail::gemv<detail::few_rows>(device, Groups{}, x, weight.data, 0, weight.stride, y);
  } else {
    detail::multiply_by_weight(device, x, weight, true, y, false);
  }
}

/// dx = or += dy W
template <ComputeScalar C, StorageScalar S>
void linear_backward_input(Device& device, Input<C> dy, MatrixView<const S> weight, MatrixView<C> dx, Into into) {
  detail::multiply_by_weight(device, dy, weight, false, dx, into == Into::add);
}

/// dW += dyᵀ x
template <StorageScalar S, ComputeScalar C>
void linear_backward_weight(Device& device, Input<C> dy, Input<C> x, MatrixView<C> dweight) {
  if constexpr (std::is_same_v<S, bfloat16>) {
    detail::for_rounded_rows(device, dy, x, 0, [&](Index, MatrixView<const bfloat16> dy_rounded, auto x_rounded) {
      detail::blas_product(device, dy_rounded, true, x_rounded, false, dweight, true);
    });
  } else {
    detail::blas_product(device, dy, true, x, false, dweight, true);
  }
}

/// y = x Wᵀ, row by row with the matrix of its group
template <ComputeScalar C, StorageScalar S>
void grouped_linear(Device& device, Groups groups, Input<C> x, MatrixStack<const S> weight, MatrixView<C> y) {
  const Index step = weight.rows * weight.columns;
  if (y.rows > detail::few_grouped_rows) {
    detail::multiply_groups<true>(device, groups, x, weight.data, step, weight.columns, y, false);
  } else if (y.rows > 0 && y.columns > 0 && groups.count > 0) {
    detail::gemv<1>(device, groups, x, weight.data, step, weight.columns, y);
  }
}

/// dx = or += dy W, row by row with the matrix of its group
template <ComputeScalar C, StorageScalar S>
void grouped_linear_backward_input(Device& device, Groups groups, Input<C> dy, MatrixStack<const S> weight,
                                   MatrixView<C> dx, Into into) {
  detail::multiply_groups<false>(device, groups, dy, weight.data, weight.rows * weight.columns, weight.columns, dx,
                                 into == Into::add);
}

/// dW of each group += dyᵀ x over the rows of the group, in their order
template <StorageScalar S, ComputeScalar C>
void grouped_linear_backward_weight(Device& device, Groups groups, Input<C> dy, Input<C> x, MatrixStack<C> dweight) {
  detail::multiply_transposed_groups<S, C>(device, groups, dy, x, dweight);
}

/// y += bias, for each row
template <ComputeScalar C, StorageScalar S>
void add_bias(Device& device, const S* bias, MatrixView<C> y) {
  detail::for_elements(device, {y.rows}, y.columns, detail::AddBiasElement<C, S>{bias, y});
}

/// dbias += the sum of dy's rows, in double
template <ComputeScalar C>
void bias_backward(Device& device, Input<C> dy, C* dbias) {
  detail::sum_columns<1>(device, dy.rows, dy.columns, detail::PlainColumn<C>{dy}, detail::AddColumnSums<C, 1>{{dbias}},
                         Arena(device.scratch()));
}

}  // namespace moe_mamba::cuda
