#pragma once

#include <cstdint>
#include <type_traits>

#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/core/view.hpp"

/// Several neighbours of a row at once.
namespace moe_mamba::cuda::detail {

/// Elements of a row that are read and written together.
template <class T, int count>
struct alignas(sizeof(T) * count) Run {
  T values[count];
};

template <int count, class T>
__device__ inline Run<std::remove_const_t<T>, count> load_run(const MatrixView<T>& from, Index row, Index column) {
  return *reinterpret_cast<const Run<std::remove_const_t<T>, count>*>(&from(row, column));
}
template <int count, class T>
__device__ inline void store_run(const Run<T, count>& run, const MatrixView<T>& to, Index row, Index column) {
  *reinterpret_cast<Run<T, count>*>(&to(row, column)) = run;
}

/// The same elements as another type, in which bfloat16 is calculated with, or rounded to it.
template <class To, class From, int count>
__device__ inline Run<To, count> run_as(const Run<From, count>& run) {
  if constexpr (std::is_same_v<To, From>) {
    return run;
  } else {
    Run<To, count> converted;
#pragma unroll
    for (int i = 0; i < count; ++i) converted.values[i] = static_cast<To>(run.values[i]);
    return converted;
  }
}

/// Elements of a matrix to calculate with, and results on their way into one.
template <int count, class T>
__device__ inline auto load_numbers(const MatrixView<T>& from, Index row, Index column) {
  return run_as<compute_t<std::remove_const_t<T>>>(load_run<count>(from, row, column));
}
template <int count, class C, class T>
__device__ inline void store_numbers(const Run<C, count>& run, const MatrixView<T>& to, Index row, Index column) {
  store_run<count>(run_as<T>(run), to, row, column);
}

/// Whether rows begin where runs may.
template <int count, class... Scalars>
bool all_aligned(const MatrixView<Scalars>&... views) {
  return (
      (reinterpret_cast<std::uintptr_t>(views.data) % (sizeof(Scalars) * count) == 0 && views.stride % count == 0) &&
      ...);
}

template <class T>
bool aligned_to_16(const T* data, Index stride) {
  return reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && stride * Index(sizeof(T)) % 16 == 0;
}

}  // namespace moe_mamba::cuda::detail
