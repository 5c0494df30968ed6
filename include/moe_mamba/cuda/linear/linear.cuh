#pragma once

#include <algorithm>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/cuda/common/elements.cuh"
#include "moe_mamba/cuda/common/mma.cuh"
#include "moe_mamba/cuda/common/sums.cuh"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/cuda/linear/blas.cuh"
#include "moe_mamba/cuda/linear/factors.cuh"
#include "moe_mamba/cuda/linear/gemv.cuh"
#include "moe_mamba/cuda/linear/grouped.cuh"
#include "moe_mamba/cuda/linear/tile_walk.cuh"
#include "moe_mamba/ops/linear.hpp"

/// Matrix products with weights stored [out, in], on a CUDA device; the contract is in ops/linear.hpp.
///
/// One matrix is cuBLAS's work; many are cut into tiles, which as many blocks as the device runs at a time go through,
/// in launches that do not depend on the groups' sizes: the device alone knows them. Results are the same from run to
/// run.
///
/// double is multiplied as double, and float as float unless the device is for TF32; as float even then in
/// products of a few rows and in grouped ones of rows that are not aligned to 16 bytes. With bfloat16 weights
/// activations are bfloat16 as well, or are rounded to it first (but in products of a few rows), and all is summed in
/// float. Grouped products with such weights of sizes that 8 does not divide are multiplied as floats, which is slow;
/// gradients of weights take any sizes.
///
/// Grouped products with bfloat16 weights are much faster where code is compiled for sm_90a instead of sm_90.
namespace moe_mamba::inline v0_2::cuda {

namespace detail {

/// Products of no more rows than this read weights faster than cuBLAS multiplies; grouped ones, than a tile does.
inline constexpr int few_rows = 4, few_grouped_rows = 8;

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

template <class S>
void multiply_by_stack(Device& device, Groups groups, MatrixView<const S> x, MatrixStack<const S> weight,
                       const ResultRows<S>& y) {
  const Index step = weight.rows * weight.columns;
  if (x.rows > few_grouped_rows) {
    multiply_groups<Along::inner>(device, groups, x, weight.data, step, weight.columns, y, Into::assign);
  } else if (x.rows > 0 && y.columns > 0 && groups.count > 0) {
    gemv<1>(device, groups, x, weight.data, step, weight.columns, y);
  }
}

}  // namespace detail

/// y = x Wᵀ
template <class X, StorageScalar C, StorageScalar S>
void linear(Device& device, MatrixView<X> x, MatrixView<const S> weight, MatrixView<C> y) {
  if (y.rows == 0 || y.columns == 0) return;
  const MatrixView<const X> from = x;
  if (y.rows == 1) {
    detail::gemv<1>(device, Groups{}, from, weight.data, 0, weight.stride, detail::ResultRows<C>(y));
  } else if (y.rows <= detail::few_rows) {
    detail::gemv<detail::few_rows>(device, Groups{}, from, weight.data, 0, weight.stride, detail::ResultRows<C>(y));
  } else {
    detail::multiply_by_weight(device, from, weight, detail::Transpose::yes, y, Into::assign);
  }
}

/// dx = or += dy W
template <class Y, StorageScalar C, StorageScalar S>
void linear_backward_input(Device& device, MatrixView<Y> dy, MatrixView<const S> weight, MatrixView<C> dx, Into into) {
  detail::multiply_by_weight(device, MatrixView<const Y>(dy), weight, detail::Transpose::no, dx, into);
}

/// dW += dyᵀ x
template <StorageScalar S, class Y, class X, ComputeScalar C>
void linear_backward_weight(Device& device, MatrixView<Y> dy, MatrixView<X> x, MatrixView<C> dweight) {
  if constexpr (std::is_same_v<S, bfloat16>) {
    detail::for_factor_rows<detail::FactorOf::blas>(device, dy, x, 0, [&](Index, auto dy_rows, auto x_rows) {
      detail::blas_product(device, dy_rows, detail::Transpose::yes, x_rows, detail::Transpose::no, dweight, Into::add);
    });
  } else {
    detail::blas_product(device, MatrixView<const C>(dy), detail::Transpose::yes, MatrixView<const C>(x),
                         detail::Transpose::no, dweight, Into::add);
  }
}

/// y = x Wᵀ, row by row with the matrix of its group; activations are of the weights' type
template <StorageScalar S>
void grouped_linear(Device& device, Groups groups, Input<S> x, MatrixStack<const S> weight, MatrixView<S> y) {
  detail::multiply_by_stack(device, groups, x, weight, detail::ResultRows<S>(y));
}
template <StorageScalar S>
void grouped_linear(Device& device, Groups groups, Input<S> x, MatrixStack<const S> weight, ScatteredRows<S> y) {
  detail::multiply_by_stack(device, groups, x, weight, detail::ResultRows<S>(y, x.rows));
}

/// dx = or += dy W, row by row with the matrix of its group
template <StorageScalar S>
void grouped_linear_backward_input(Device& device, Groups groups, Input<S> dy, MatrixStack<const S> weight,
                                   MatrixView<S> dx, Into into) {
  detail::multiply_groups<detail::Along::outer>(device, groups, dy, weight.data, weight.rows * weight.columns,
                                                weight.columns, detail::ResultRows<S>(dx), into);
}
template <StorageScalar S>
void grouped_linear_backward_input(Device& device, Groups groups, Input<S> dy, MatrixStack<const S> weight,
                                   ScatteredRows<S> dx, Into into) {
  detail::multiply_groups<detail::Along::outer>(device, groups, dy, weight.data, weight.rows * weight.columns,
                                                weight.columns, detail::ResultRows<S>(dx, dy.rows), into);
}

/// dW of each group = or += dyᵀ x over the rows of the group, in their order
template <StorageScalar S>
void grouped_linear_backward_weight(Device& device, Groups groups, Input<S> dy, Input<S> x,
                                    MatrixStack<compute_t<S>> dweight, Into into) {
  detail::multiply_transposed_groups<S>(device, groups, dy, x, dweight, into);
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

}  // namespace moe_mamba::inline v0_2::cuda
