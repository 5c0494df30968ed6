#pragma once

#include <type_traits>

#include "moe_mamba/core/annotation.hpp"
#include "moe_mamba/core/scalar.hpp"

/// Views: pointers with a shape. They own nothing and check nothing.
namespace moe_mamba {

/// A batch of equally long sequences. Activations of such a batch are matrices of tokens() rows, the rows of one
/// sequence after those of the one before it.
struct Shape {
  Index batch = 0;
  Index length = 0;

  MOE_MAMBA_HOST_DEVICE constexpr Index tokens() const { return batch * length; }
  friend constexpr bool operator==(Shape, Shape) = default;
};

/// A row-major matrix whose rows lie `stride` elements apart; columns are contiguous.
template <class T>
struct MatrixView {
  T* data = nullptr;
  Index rows = 0;
  Index columns = 0;
  Index stride = 0;

  MOE_MAMBA_HOST_DEVICE constexpr T* row(Index index) const { return data + index * stride; }
  MOE_MAMBA_HOST_DEVICE constexpr T& operator()(Index row_index, Index column) const {
    return data[row_index * stride + column];
  }

  /// `count` rows from row `first` on.
  MOE_MAMBA_HOST_DEVICE constexpr MatrixView row_block(Index first, Index count) const {
    return {row(first), count, columns, stride};
  }
  /// `count` columns from column `first` on.
  MOE_MAMBA_HOST_DEVICE constexpr MatrixView column_block(Index first, Index count) const {
    return {data + first, rows, count, stride};
  }

  // A template, because nvcc warns of a conversion to the type itself that its constraint leaves out.
  template <class To>
  requires(std::is_same_v<To, const T> && !std::is_const_v<T>) MOE_MAMBA_HOST_DEVICE constexpr operator MatrixView<To>()
      const {
    return {data, rows, columns, stride};
  }
};

/// A matrix that a function only reads. The scalar is not deduced from it but from the function's output, so that a
/// view of mutable elements fits as well.
template <class T>
using Input = std::type_identity_t<MatrixView<const T>>;

/// A contiguous matrix.
template <class T>
constexpr MatrixView<T> matrix(T* data, Index rows, Index columns) {
  return {data, rows, columns, columns};
}

/// Running states of the sequences of a batch: those of sequence b begin at data + b * stride. Null data stands for
/// states that are all zero when read and are dropped when written.
template <class T>
struct StateView {
  T* data = nullptr;
  Index stride = 0;

  MOE_MAMBA_HOST_DEVICE constexpr explicit operator bool() const { return data != nullptr; }
  MOE_MAMBA_HOST_DEVICE constexpr T* sequence(Index index) const { return data + index * stride; }
  /// The states that lie `offset` elements further on in each sequence; null stays null.
  MOE_MAMBA_HOST_DEVICE constexpr StateView at(Index offset) const {
    return {data == nullptr ? nullptr : data + offset, stride};
  }

  template <class To>
  requires(std::is_same_v<To, const T> && !std::is_const_v<T>) MOE_MAMBA_HOST_DEVICE constexpr operator StateView<To>()
      const {
    return {data, stride};
  }
};

}  // namespace moe_mamba
