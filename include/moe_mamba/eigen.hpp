#pragma once

/// Eigen's arrays as what models take, and matrices of the library as Eigen's, without a copy. For programs that have Eigen
/// (eigen.tuxfamily.org, 3.4 or newer) in their include path: the library itself does not need it.

#include <cstddef>
#include <span>
#include <type_traits>

#include <Eigen/Core>

#include "moe_mamba/core/view.hpp"

namespace moe_mamba::inline v0_2 {

/// The numbers of a matrix, vector or array of Eigen's, in the order in which they lie in memory. Eigen's matrices are stored
/// by columns unless told otherwise: one of (Inputs, B) numbers has a column for each sequence, which is what a model's
/// inputs (B, Inputs) are.
template <class Derived>
std::span<const typename Derived::Scalar> as_span(const Eigen::PlainObjectBase<Derived>& array) {
  return {array.data(), static_cast<std::size_t>(array.size())};
}
template <class Derived>
std::span<typename Derived::Scalar> as_span(Eigen::PlainObjectBase<Derived>& array) {
  return {array.data(), static_cast<std::size_t>(array.size())};
}

/// A matrix of T, (rows, columns), as Eigen sees it; `view` may have rows further apart than their length.
template <class T>
using EigenMap = Eigen::Map<
    std::conditional_t<std::is_const_v<T>,
                       const Eigen::Matrix<std::remove_const_t<T>, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>,
                       Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>,
    Eigen::Unaligned, Eigen::OuterStride<>>;

template <class T>
EigenMap<T> as_eigen(MatrixView<T> view) {
  return {view.data, view.rows, view.columns, Eigen::OuterStride<>(view.stride)};
}

}  // namespace moe_mamba::inline v0_2
