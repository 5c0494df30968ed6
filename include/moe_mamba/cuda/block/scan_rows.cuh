#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "moe_mamba/core/view.hpp"

/// How the scan reads and writes rows of matrices and of shared memory: several neighbours at once, where they lie so.
namespace moe_mamba::cuda::detail {

/// Values that are loaded at once.
template <class C, int Count>
struct alignas(Count * sizeof(C) < 16 ? Count * sizeof(C) : 16) ScanValues {
  C of[Count];
};

template <class C, int Count>
__device__ __forceinline__ ScanValues<C, Count> filled(C value) {
  ScanValues<C, Count> values;
#pragma unroll
  for (int i = 0; i < Count; ++i) values.of[i] = value;
  return values;
}

/// Neighbours in shared memory, which lie as Values must.
template <class Values, class C>
__device__ __forceinline__ Values& together(C& first) {
  return reinterpret_cast<Values&>(first);
}

/// Whether rows of a matrix, and columns of a multiple of `count` elements, can be loaded `count` at once.
template <class T>
bool loads_together(const MatrixView<T>& rows, int count) {
  const auto bytes =
      static_cast<std::uintptr_t>(std::min<std::size_t>(16, static_cast<std::size_t>(count) * sizeof(T)));
  return rows.columns % count == 0 && reinterpret_cast<std::uintptr_t>(rows.data) % bytes == 0 &&
         static_cast<std::size_t>(rows.stride) * sizeof(T) % bytes == 0;
}

/// A thread's way through rows of a matrix that lie `Apart` rows apart. The stride is not kept but read where it is used.
template <class T, int Apart>
struct RowCursor {
  const MatrixView<T>& rows;
  T* at;

  __device__ __forceinline__ RowCursor(const MatrixView<T>& matrix, Index row, Index column)
      : rows(matrix), at(matrix.data + row * matrix.stride + column) {}

  /// To the row of its own that lies `count` further on.
  __device__ __forceinline__ void move(int count) { at += count * Apart * rows.stride; }

  /// Count values from here on, of which the first `present` are there; the others are left alone. With Together, which
  /// needs loads_together, all or none are.
  template <bool Together, int Count>
  __device__ __forceinline__ void load(ScanValues<std::remove_const_t<T>, Count>& values, int present) const {
    if constexpr (Together) {
      if (present > 0) values = *reinterpret_cast<const ScanValues<std::remove_const_t<T>, Count>*>(at);
    } else {
#pragma unroll
      for (int i = 0; i < Count; ++i) {
        if (i < present) values.of[i] = at[i];
      }
    }
  }

  template <bool Together, int Count>
  __device__ __forceinline__ void store(const ScanValues<T, Count>& values, int present) const {
    if constexpr (Together) {
      if (present > 0) *reinterpret_cast<ScanValues<T, Count>*>(at) = values;
    } else {
#pragma unroll
      for (int i = 0; i < Count; ++i) {
        if (i < present) at[i] = values.of[i];
      }
    }
  }
};

}  // namespace moe_mamba::cuda::detail
