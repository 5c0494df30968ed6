#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/cuda/common/rounding.cuh"

/// How the scan reads and writes rows of matrices and of shared memory: several neighbours at once, where they lie so.
namespace moe_mamba::cuda::detail {

/// Values that are loaded at once.
template <class C, int Count>
struct alignas(Count * sizeof(C) < 16 ? Count * sizeof(C) : 16) ScanValues {
  C of[Count];
};

/// Activations as they lie in memory: in pairs, the first in the lower half, where they are bfloat16 and even in number. As
/// single ones they would be taken apart behind the load, which would be to wait for it.
template <class C, int Count>
using StoredValues = std::conditional_t<std::is_same_v<C, bfloat16> && Count % 2 == 0, ScanValues<unsigned, Count / 2>,
                                        ScanValues<C, Count>>;

template <class C, int Count>
__device__ __forceinline__ StoredValues<C, Count> filled(compute_t<C> value) {
  StoredValues<C, Count> values;
  if constexpr (std::is_same_v<decltype(values), ScanValues<C, Count>>) {
#pragma unroll
    for (int i = 0; i < Count; ++i) values.of[i] = static_cast<C>(value);
  } else {
#pragma unroll
    for (int i = 0; i < Count / 2; ++i) values.of[i] = static_cast<C>(value).bits * 0x10001u;
  }
  return values;
}

/// Activations as arithmetic takes them. What is asked for ahead of its use is widened where it is used.
template <class C, int Count>
__device__ __forceinline__ ScanValues<compute_t<C>, Count> widened(const ScanValues<C, Count>& values) {
  ScanValues<compute_t<C>, Count> wide;
#pragma unroll
  for (int i = 0; i < Count; ++i) wide.of[i] = static_cast<compute_t<C>>(values.of[i]);
  return wide;
}
template <int Pairs>
__device__ __forceinline__ ScanValues<float, 2 * Pairs> widened(const ScanValues<unsigned, Pairs>& values) {
  ScanValues<float, 2 * Pairs> wide;
#pragma unroll
  for (int i = 0; i < Pairs; ++i) {
    wide.of[2 * i] = __uint_as_float(values.of[i] << 16);
    wide.of[2 * i + 1] = __uint_as_float(values.of[i] & 0xffff0000u);
  }
  return wide;
}

/// The way back.
template <class C, int Count>
__device__ __forceinline__ StoredValues<C, Count> narrowed(const ScanValues<compute_t<C>, Count>& values) {
  StoredValues<C, Count> stored;
  if constexpr (std::is_same_v<decltype(stored), ScanValues<C, Count>>) {
#pragma unroll
    for (int i = 0; i < Count; ++i) stored.of[i] = stored_as<C>(values.of[i]);
  } else {
#pragma unroll
    for (int i = 0; i < Count / 2; ++i) stored.of[i] = rounded_pair(values.of[2 * i], values.of[2 * i + 1]);
  }
  return stored;
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
        if constexpr (std::is_same_v<Values, ScanValues<std::remove_const_t<T>, count>>) {
          values.of[i] = at[i];
        } else {
          const unsigned bits = at[i].bits, shift = i % 2 * 16;
          values.of[i / 2] = (values.of[i / 2] & ~(0xffffu << shift)) | bits << shift;
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
        if constexpr (std::is_same_v<Values, ScanValues<T, count>>) {
          at[i] = values.of[i];
        } else {
          at[i].bits = static_cast<std::uint16_t>(values.of[i / 2] >> (i % 2 * 16));
        }
      }
    }
  }
};

}  // namespace moe_mamba::cuda::detail
