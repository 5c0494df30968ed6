#pragma once

#include "moe_mamba/cuda/pieces.cuh"
#include "moe_mamba/ops/elementwise.hpp"

/// Plain loops over matrices on a CUDA device; the contract is in ops/elementwise.hpp.
namespace moe_mamba::cuda {

namespace detail {

template <class C>
struct CopyElement {
  MatrixView<const C> x;
  MatrixView<C> y;
  __device__ void operator()(Index row, Index column) const { y(row, column) = x(row, column); }
};

template <class C>
struct AddElement {
  MatrixView<const C> x;
  MatrixView<C> y;
  __device__ void operator()(Index row, Index column) const { y(row, column) += x(row, column); }
};

template <class C>
struct FillElement {
  C value;
  MatrixView<C> y;
  __device__ void operator()(Index row, Index column) const { y(row, column) = value; }
};

template <class C>
struct SquaredErrorElement {
  MatrixView<const C> x, target;
  C factor;
  MatrixView<C> dx;
  __device__ double operator()(Index row, Index column) const {
    const C difference = x(row, column) - target(row, column);
    if (dx.data != nullptr) dx(row, column) = factor * difference;
    return double(difference) * double(difference);
  }
};

}  // namespace detail

/// y = x
template <ComputeScalar C>
void copy(Device& device, Input<C> x, MatrixView<C> y) {
  detail::for_elements(device, y.rows, y.columns, detail::all_contiguous(x, y), detail::CopyElement<C>{x, y});
}

/// y += x
template <ComputeScalar C>
void add(Device& device, Input<C> x, MatrixView<C> y) {
  detail::for_elements(device, y.rows, y.columns, detail::all_contiguous(x, y), detail::AddElement<C>{x, y});
}

/// y = value
template <ComputeScalar C>
void fill(Device& device, std::type_identity_t<C> value, MatrixView<C> y) {
  detail::for_elements(device, y.rows, y.columns, detail::all_contiguous(y), detail::FillElement<C>{value, y});
}

/// *sum = Σ (x - target)², summed in double; dx = 2 · scale · (x - target) where dx has data.
template <ComputeScalar C>
void squared_error(Device& device, Input<C> x, Input<C> target, double scale, MatrixView<C> dx, double* sum) {
  const bool contiguous = detail::all_contiguous(x, target) && (dx.data == nullptr || detail::all_contiguous(dx));
  detail::sum_elements(device, x.rows, x.columns, contiguous,
                       detail::SquaredErrorElement<C>{x, target, static_cast<C>(2 * scale), dx}, sum);
}

}  // namespace moe_mamba::cuda
