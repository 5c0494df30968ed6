#pragma once

#include "moe_mamba/cuda/common/elements.cuh"
#include "moe_mamba/cuda/common/sums.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/ops/elementwise.hpp"

/// Plain loops over matrices on a CUDA device; the contract is in ops/elementwise.hpp.
namespace moe_mamba::inline v0_2::cuda {

namespace detail {

template <class X, class C>
struct CopyVector {
  MatrixView<const X> x;
  MatrixView<C> y;
  template <int count>
  __device__ void operator()(Index row, Index column) const {
    store<count>(convert<C>(load<count>(x, row, column)), y, row, column);
  }
};

template <class X, class C>
struct AddVector {
  MatrixView<const X> x;
  MatrixView<C> y;
  template <int count>
  __device__ void operator()(Index row, Index column) const {
    const auto addend = convert<compute_t<C>>(load<count>(x, row, column));
    auto sum = load_widened<count>(y, row, column);
    for (int i = 0; i < count; ++i) sum.values[i] += addend.values[i];
    store_narrowed<count>(sum, y, row, column);
  }
};

template <class C>
struct FillVector {
  C value;
  MatrixView<C> y;
  template <int count>
  __device__ void operator()(Index row, Index column) const {
    Vector<C, count> values;
    for (int i = 0; i < count; ++i) values.values[i] = value;
    store<count>(values, y, row, column);
  }
};

template <class C>
struct ScaleVector {
  compute_t<C> factor;
  MatrixView<C> y;
  template <int count>
  __device__ void operator()(Index row, Index column) const {
    auto product = load_widened<count>(y, row, column);
    for (int i = 0; i < count; ++i) product.values[i] *= factor;
    store_narrowed<count>(product, y, row, column);
  }
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
template <class X, StorageScalar C>
void copy(Device& device, MatrixView<X> x, MatrixView<C> y) {
  if (detail::all_contiguous(x, y)) {
    x = detail::flattened(x);
    y = detail::flattened(y);
  }
  detail::for_vectors(device, {y.rows}, y.columns, detail::CopyVector<std::remove_const_t<X>, C>{x, y}, x, y);
}

/// y += x
template <class X, StorageScalar C>
void add(Device& device, MatrixView<X> x, MatrixView<C> y) {
  if (detail::all_contiguous(x, y)) {
    x = detail::flattened(x);
    y = detail::flattened(y);
  }
  detail::for_vectors(device, {y.rows}, y.columns, detail::AddVector<std::remove_const_t<X>, C>{x, y}, x, y);
}

/// y = value
template <StorageScalar C>
void fill(Device& device, std::type_identity_t<C> value, MatrixView<C> y) {
  if (detail::all_contiguous(y)) y = detail::flattened(y);
  detail::for_vectors(device, {y.rows}, y.columns, detail::FillVector<C>{value, y}, y);
}

/// y *= factor
template <StorageScalar C>
void scale(Device& device, compute_t<C> factor, MatrixView<C> y) {
  if (detail::all_contiguous(y)) y = detail::flattened(y);
  detail::for_vectors(device, {y.rows}, y.columns, detail::ScaleVector<C>{factor, y}, y);
}

/// *sum = Σ (x - target)², summed in double; dx = 2 · scale · (x - target) if dx has data.
template <ComputeScalar C>
void squared_error(Device& device, Input<C> x, Input<C> target, double scale, MatrixView<C> dx, double* sum) {
  const bool contiguous = detail::all_contiguous(x, target) && (dx.data == nullptr || detail::all_contiguous(dx));
  detail::sum_elements(device, x.rows, x.columns, contiguous,
                       detail::SquaredErrorElement<C>{x, target, static_cast<C>(2 * scale), dx}, sum);
}

}  // namespace moe_mamba::inline v0_2::cuda
