#pragma once

#include <cstdint>
#include <type_traits>

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/cuda/common/vector.cuh"

/// Cursors over the rows of a matrix, for access in packed vectors.
namespace moe_mamba::inline v0_2::cuda::detail {

/// A thread's position in a matrix, which advances in steps of `row_step` rows. The stride is reloaded at each use, so
/// it occupies no register.
template <class T, int row_step>
struct RowCursor {
  const MatrixView<T>& rows;
  T* at;

  __device__ __forceinline__ RowCursor(const MatrixView<T>& matrix, Index row, Index column)
      : rows(matrix), at(matrix.data + row * matrix.stride + column) {}

  /// Advances by `count` steps.
  __device__ __forceinline__ void move(int count) { at += count * row_step * rows.stride; }

  /// Loads the first `present` elements of a vector, Vector or Packed; the others keep their values. With `vectorised`,
  /// which needs can_vectorise, all elements are present or none.
  template <bool vectorised, class Values>
  __device__ __forceinline__ void load(Values& vector, int present) const {
    if constexpr (vectorised) {
      if (present > 0) vector = *reinterpret_cast<const Values*>(at);
    } else {
      constexpr int count = sizeof(Values) / sizeof(T);
#pragma unroll
      for (int i = 0; i < count; ++i) {
        if (i >= present) continue;
        if constexpr (std::is_same_v<Values, Vector<std::remove_const_t<T>, count>>) {
          vector.values[i] = at[i];
        } else {
          const unsigned bits = at[i].bits, shift = i % 2 * 16;
          vector.values[i / 2] = (vector.values[i / 2] & ~(0xffffu << shift)) | bits << shift;
        }
      }
    }
  }

  template <bool vectorised, class Values>
  __device__ __forceinline__ void store(const Values& vector, int present) const {
    if constexpr (vectorised) {
      if (present > 0) *reinterpret_cast<Values*>(at) = vector;
    } else {
      constexpr int count = sizeof(Values) / sizeof(T);
#pragma unroll
      for (int i = 0; i < count; ++i) {
        if (i >= present) continue;
        if constexpr (std::is_same_v<Values, Vector<T, count>>) {
          at[i] = vector.values[i];
        } else {
          at[i].bits = static_cast<std::uint16_t>(vector.values[i / 2] >> (i % 2 * 16));
        }
      }
    }
  }
};

/// A cursor over an output that several launches, the passes, add to; the first of them assigns.
template <class C, bool separate_sums, int row_step>
struct OutputCursor {
  using T = compute_t<C>;
  RowCursor<C, row_step> output;

  __device__ __forceinline__ OutputCursor(const MatrixView<C>& to, const MatrixView<T>& /*sums*/, Index row,
                                          Index column)
      : output(to, row, column) {}

  __device__ __forceinline__ void move(int count) { output.move(count); }

  /// As in RowCursor. Rounded outputs have a single pass here.
  template <bool vectorised, int count>
  __device__ __forceinline__ void add(Vector<T, count> vector, int present, bool first, bool /*last*/) const {
    if constexpr (std::is_same_v<C, T>) {
      if (!first) {
        Vector<T, count> before = {};
        output.template load<vectorised>(before, present);
#pragma unroll
        for (int j = 0; j < count; ++j) vector.values[j] += before.values[j];
      }
    }
    output.template store<vectorised>(narrow<C>(vector), present);
  }
};

/// The same for passes that accumulate in `sums`, in the compute type; the last of them rounds the total once.
/// Addresses are recomputed at each use, so they occupy no registers.
template <class C, int row_step>
struct OutputCursor<C, true, row_step> {
  using T = compute_t<C>;
  const MatrixView<C>& output;
  const MatrixView<T>& sums;
  Index row, column;

  __device__ __forceinline__ OutputCursor(const MatrixView<C>& to, const MatrixView<T>& sums_of_passes, Index first_row,
                                          Index first_column)
      : output(to), sums(sums_of_passes), row(first_row), column(first_column) {}

  __device__ __forceinline__ void move(int count) { row += count * row_step; }

  template <bool vectorised, int count>
  __device__ __forceinline__ void add(Vector<T, count> vector, int present, bool first, bool last) const {
    const RowCursor<T, row_step> sum(sums, row, column);
    if (!first) {
      Vector<T, count> before = {};
      sum.template load<vectorised>(before, present);
#pragma unroll
      for (int j = 0; j < count; ++j) vector.values[j] += before.values[j];
    }
    if (last) {
      RowCursor<C, row_step>(output, row, column).template store<vectorised>(narrow<C>(vector), present);
    } else {
      sum.template store<vectorised>(vector, present);
    }
  }
};

}  // namespace moe_mamba::inline v0_2::cuda::detail
