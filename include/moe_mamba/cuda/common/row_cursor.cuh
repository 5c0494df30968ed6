#pragma once

#include <cstdint>
#include <type_traits>

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/cuda/common/vector.cuh"

/// Rows of a matrix, one after the other, in packed vectors.
namespace moe_mamba::cuda::detail {

/// A thread's way through rows of a matrix that lie `Apart` rows apart. The stride is not kept but read where it is used.
template <class T, int Apart>
struct RowCursor {
  const MatrixView<T>& rows;
  T* at;

  __device__ __forceinline__ RowCursor(const MatrixView<T>& matrix, Index row, Index column)
      : rows(matrix), at(matrix.data + row * matrix.stride + column) {}

  /// To the row of its own that lies `count` further on.
  __device__ __forceinline__ void move(int count) { at += count * Apart * rows.stride; }

  /// Values from here on, of which the first `present` are there; the others are left alone. With Together, which needs
  /// loads_together, all or none are.
  template <bool Together, class Values>
  __device__ __forceinline__ void load(Values& values, int present) const {
    if constexpr (Together) {
      if (present > 0) values = *reinterpret_cast<const Values*>(at);
    } else {
      constexpr int count = sizeof(Values) / sizeof(T);
#pragma unroll
      for (int i = 0; i < count; ++i) {
        if (i >= present) continue;
        if constexpr (std::is_same_v<Values, Vector<std::remove_const_t<T>, count>>) {
          values.values[i] = at[i];
        } else {
          const unsigned bits = at[i].bits, shift = i % 2 * 16;
          values.values[i / 2] = (values.values[i / 2] & ~(0xffffu << shift)) | bits << shift;
        }
      }
    }
  }

  template <bool Together, class Values>
  __device__ __forceinline__ void store(const Values& values, int present) const {
    if constexpr (Together) {
      if (present > 0) *reinterpret_cast<Values*>(at) = values;
    } else {
      constexpr int count = sizeof(Values) / sizeof(T);
#pragma unroll
      for (int i = 0; i < count; ++i) {
        if (i >= present) continue;
        if constexpr (std::is_same_v<Values, Vector<T, count>>) {
          at[i] = values.values[i];
        } else {
          at[i].bits = static_cast<std::uint16_t>(values.values[i / 2] >> (i % 2 * 16));
        }
      }
    }
  }
};

}  // namespace moe_mamba::cuda::detail
