#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/cuda/common/rounding.cuh"

/// Vectorised access: neighbouring elements of a row in one load or store of at most 16 bytes.
namespace moe_mamba::inline v0_2::cuda::detail {

/// `count` neighbouring elements of a row.
template <class T, int count>
struct alignas(sizeof(T) * count < 16 ? sizeof(T) * count : 16) Vector {
  T values[count];
};

/// The number of elements of type T in a vector of 16 bytes.
template <class T>
inline constexpr int full_vector = 16 / int(sizeof(T));

/// The largest power of two that divides `count` and whose vector is at most 16 bytes.
template <class T, int count>
inline constexpr int vector_divisor = [] {
  int size = 1;
  while (count % (2 * size) == 0 && sizeof(T) * 2 * size <= 16) size *= 2;
  return size;
}();

/// Whether rows that begin `stride` elements apart, the first at `data`, can be accessed in vectors of `count`
/// elements.
template <int count, class T>
MOE_MAMBA_HOST_DEVICE bool can_vectorise(const T* data, Index stride) {
  constexpr std::size_t bytes = alignof(Vector<T, count>);
  return reinterpret_cast<std::uintptr_t>(data) % bytes == 0 &&
         static_cast<std::size_t>(stride) * sizeof(T) % bytes == 0;
}

/// The same for all of several matrices, whose columns must also be whole vectors.
template <int count, class... Scalars>
MOE_MAMBA_HOST_DEVICE bool can_vectorise(const MatrixView<Scalars>&... views) {
  return ((views.columns % count == 0 && can_vectorise<count>(views.data, views.stride)) && ...);
}

template <int count, class T>
__device__ inline Vector<std::remove_const_t<T>, count> load(const MatrixView<T>& from, Index row, Index column) {
  return *reinterpret_cast<const Vector<std::remove_const_t<T>, count>*>(&from(row, column));
}
template <int count, class T>
__device__ inline void store(const Vector<T, count>& vector, const MatrixView<T>& to, Index row, Index column) {
  *reinterpret_cast<Vector<T, count>*>(&to(row, column)) = vector;
}

/// Converts elements: to the compute type after a load, to the storage type before a store.
template <class To, class From, int count>
__device__ inline Vector<To, count> convert(const Vector<From, count>& vector) {
  if constexpr (std::is_same_v<To, From>) {
    return vector;
  } else {
    Vector<To, count> converted;
#pragma unroll
    for (int i = 0; i < count; ++i) converted.values[i] = static_cast<To>(vector.values[i]);
    return converted;
  }
}

template <int count, class T>
__device__ inline auto load_widened(const MatrixView<T>& from, Index row, Index column) {
  return convert<compute_t<std::remove_const_t<T>>>(load<count>(from, row, column));
}
template <int count, class C, class T>
__device__ inline void store_narrowed(const Vector<C, count>& vector, const MatrixView<T>& to, Index row,
                                      Index column) {
  store<count>(convert<T>(vector), to, row, column);
}

/// The vector at an element of shared memory, which must be aligned to the vector.
template <class Vector, class T>
__device__ __forceinline__ Vector& as_vector(T& first) {
  return reinterpret_cast<Vector&>(first);
}

/// Loads `count` elements of an array into registers, in vectors if `vectorised`.
template <bool vectorised, int count, class T>
__device__ __forceinline__ void load_array(const T* from, T (&to)[count]) {
  constexpr int size = vectorised ? vector_divisor<T, count> : 1;
#pragma unroll
  for (int i = 0; i < count; i += size) {
    const auto vector = *reinterpret_cast<const Vector<T, size>*>(from + i);
#pragma unroll
    for (int j = 0; j < size; ++j) to[i + j] = vector.values[j];
  }
}

/// A vector as in memory, for values that are prefetched: an even number of bfloat16 stay packed in pairs, the first in
/// the lower half. Single ones would be unpacked right after the load, which would stall on it.
template <class C, int count>
using Packed =
    std::conditional_t<std::is_same_v<C, bfloat16> && count % 2 == 0, Vector<unsigned, count / 2>, Vector<C, count>>;

/// A packed vector of equal values.
template <class C, int count>
__device__ __forceinline__ Packed<C, count> broadcast(compute_t<C> value) {
  Packed<C, count> packed;
  if constexpr (std::is_same_v<decltype(packed), Vector<C, count>>) {
#pragma unroll
    for (int i = 0; i < count; ++i) packed.values[i] = static_cast<C>(value);
  } else {
#pragma unroll
    for (int i = 0; i < count / 2; ++i) packed.values[i] = static_cast<C>(value).bits * 0x10001u;
  }
  return packed;
}

/// A packed vector in the compute type.
template <class C, int count>
__device__ __forceinline__ Vector<compute_t<C>, count> widen(const Vector<C, count>& packed) {
  Vector<compute_t<C>, count> wide;
#pragma unroll
  for (int i = 0; i < count; ++i) wide.values[i] = static_cast<compute_t<C>>(packed.values[i]);
  return wide;
}
template <int pairs>
__device__ __forceinline__ Vector<float, 2 * pairs> widen(const Vector<unsigned, pairs>& packed) {
  Vector<float, 2 * pairs> wide;
#pragma unroll
  for (int i = 0; i < pairs; ++i) {
    wide.values[2 * i] = __uint_as_float(packed.values[i] << 16);
    wide.values[2 * i + 1] = __uint_as_float(packed.values[i] & 0xffff0000u);
  }
  return wide;
}

/// Values of the compute type, rounded and packed.
template <class C, int count>
__device__ __forceinline__ Packed<C, count> narrow(const Vector<compute_t<C>, count>& wide) {
  Packed<C, count> packed;
  if constexpr (std::is_same_v<decltype(packed), Vector<C, count>>) {
#pragma unroll
    for (int i = 0; i < count; ++i) packed.values[i] = stored_as<C>(wide.values[i]);
  } else {
#pragma unroll
    for (int i = 0; i < count / 2; ++i) packed.values[i] = rounded_pair(wide.values[2 * i], wide.values[2 * i + 1]);
  }
  return packed;
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
