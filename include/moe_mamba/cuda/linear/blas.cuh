#pragma once

#include <algorithm>

#include "moe_mamba/cuda/common/elements.cuh"
#include "moe_mamba/cuda/common/mma.cuh"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/cuda/linear/factors.cuh"
#include "moe_mamba/ops/linear.hpp"

/// Products with one matrix, by cuBLAS.
namespace moe_mamba::inline v0_2::cuda::detail {

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

/// out (m, n) = or += a b, row by row in memory; a (m, k) and b (k, n) are given transposed where it says so.
template <class T, class C>
void whole_blas_product(Device& device, MatrixView<const T> a, Transpose a_transpose, MatrixView<const T> b,
                        Transpose b_transpose, MatrixView<C> out, Into into) {
  using Sum = compute_t<C>;
  const Index inner = a_transpose == Transpose::yes ? a.rows : a.columns;
  if (out.rows == 0 || out.columns == 0 || (into == Into::add && inner == 0)) return;
  if (inner == 0) {
    for_elements(device, {out.rows}, out.columns, ZeroElement<C>{out});
    return;
  }
  const Sum one = 1, beta = into == Into::add ? Sum(1) : Sum(0);
  const bool tf32 = std::is_same_v<T, float> && device.products() == FloatProducts::tf32;
  const cublasComputeType_t compute = sizeof(Sum) == 8 ? CUBLAS_COMPUTE_64F
                                      : tf32           ? CUBLAS_COMPUTE_32F_FAST_TF32
                                                       : CUBLAS_COMPUTE_32F;
  // To cuBLAS, whose matrices lie column by column, each of these is its transpose, and so is their product.
  check(cublasGemmEx_64(device.blas(), b_transpose == Transpose::yes ? CUBLAS_OP_T : CUBLAS_OP_N,
                        a_transpose == Transpose::yes ? CUBLAS_OP_T : CUBLAS_OP_N, out.columns, out.rows, inner, &one,
                        b.data, blas_type<T>, std::max<Index>(b.stride, 1), a.data, blas_type<T>,
                        std::max<Index>(a.stride, 1), &beta, out.data, blas_type<C>, std::max<Index>(out.stride, 1),
                        compute, CUBLAS_GEMM_DEFAULT),
        "cublasGemmEx");
}

/// The same. cuBLAS is several times as slow with bfloat16 where 8 does not divide the columns, the rows where a is
/// transposed, or the inner index where that is contiguous: what is left over of large ones becomes a product of its
/// own. The inner index stays whole where the sum would be rounded in between.
template <class T, class C>
void blas_product(Device& device, MatrixView<const T> a, Transpose a_transpose, MatrixView<const T> b,
                  Transpose b_transpose, MatrixView<C> out, Into into) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    constexpr Index eight = 8, large = 1024;
    const auto leaves_some = [](Index extent) { return extent >= large && extent % eight != 0; };
    const Index inner = a_transpose == Transpose::yes ? a.rows : a.columns;
    if (leaves_some(out.columns)) {
      const auto columns = [&](Index first, Index count) {
        const auto part = b_transpose == Transpose::yes ? b.row_block(first, count) : b.column_block(first, count);
        blas_product(device, a, a_transpose, part, b_transpose, out.column_block(first, count), into);
      };
      const Index most = out.columns / eight * eight;
      columns(0, most);
      columns(most, out.columns - most);
      return;
    }
    if (a_transpose == Transpose::yes && leaves_some(out.rows)) {
      const auto rows = [&](Index first, Index count) {
        blas_product(device, a.column_block(first, count), Transpose::yes, b, b_transpose, out.row_block(first, count),
                     into);
      };
      const Index most = out.rows / eight * eight;
      rows(0, most);
      rows(most, out.rows - most);
      return;
    }
    if (std::is_same_v<C, float> && (a_transpose == Transpose::no || b_transpose == Transpose::yes) &&
        leaves_some(inner)) {
      const auto inner_block = [&](Index first, Index count, Into part_into) {
        const auto a_part = a_transpose == Transpose::yes ? a.row_block(first, count) : a.column_block(first, count);
        const auto b_part = b_transpose == Transpose::yes ? b.column_block(first, count) : b.row_block(first, count);
        whole_blas_product(device, a_part, a_transpose, b_part, b_transpose, out, part_into);
      };
      const Index most = inner / eight * eight;
      inner_block(0, most, into);
      inner_block(most, inner - most, Into::add);
      return;
    }
  }
  whole_blas_product(device, a, a_transpose, b, b_transpose, out, into);
}

/// out = or += a W or a Wᵀ, in as many rows at a time as fit converted into the scratch memory where a is not of W's
/// type.
template <class X, class S, class C>
void multiply_by_weight(Device& device, MatrixView<const X> a, MatrixView<const S> weight, Transpose transpose,
                        MatrixView<C> out, Into into) {
  if constexpr (std::is_same_v<X, S>) {
    blas_product(device, a, Transpose::no, weight, transpose, out, into);
  } else {
    for_factor_rows<FactorOf::blas>(device, a, [&](Index first, MatrixView<const bfloat16> factor) {
      blas_product(device, factor, Transpose::no, weight, transpose, out.row_block(first, factor.rows), into);
    });
  }
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
