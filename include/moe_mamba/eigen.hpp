#pragma once

/// Eigen's arrays as arguments of models, and the library's matrices as Eigen's, without copying. For programs with Eigen
/// (eigen.tuxfamily.org, 3.4 or newer) on their include path; the library itself does not need it.

#include <cstddef>
#include <span>
#include <type_traits>

#include <Eigen/Core>

#include "moe_mamba/core/view.hpp"

namespace moe_mamba::inline v0_2 {

/// The numbers of an Eigen matrix, vector or array in their order in memory. Eigen's matrices are column-major by default: a
/// matrix (Inputs, B) has a column per sequence, which is the layout of a model's inputs (B, Inputs).
template <class Derived>
std::span<const typename Derived::Scalar> as_span(const Eigen::PlainObjectBase<Derived>& array) {
  return {array.data(), static_cast<std::size_t>(array.size())};
}
template <class Derived>
std::span<typename Derived::Scalar> as_span(Eigen::PlainObjectBase<Derived>& array) {
  return {array.data(), static_cast<std::size_t>(array.size())};
}

/// A matrix of the library as an Eigen map; the rows of `view` may be further apart than their length.
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
