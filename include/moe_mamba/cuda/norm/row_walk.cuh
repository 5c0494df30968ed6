#pragma once

#include <algorithm>
#include <type_traits>

#include "moe_mamba/cuda/common/launch.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/ops/norm.hpp"

/// How norms traverse rows: one warp or block per row, in 16-byte vectors if the alignment allows it.
namespace moe_mamba::inline v0_2::cuda::detail {

/// Calls each.operator()<threads, count>(row, thread): `threads` threads per row, which traverse it in vectors of
/// `count` elements.
template <int threads, int count, class Each>
__global__ void __launch_bounds__(threads) row_kernel(Index rows, Each each) {
  await_stream();
  release_stream();
  for (Index row = blockIdx.x; row < rows; row += gridDim.x) {
    each.template operator()<threads, count>(row, int(threadIdx.x));
  }
}

/// One warp per row if it is too short for more, otherwise a block; `views` are the matrices that `each` accesses by
/// row.
template <class Each, class... Scalars>
void for_rows(Device& device, Index rows, Index columns, const Each& each, const MatrixView<Scalars>&... views) {
  if (rows == 0) return;
  constexpr int wide = 16 / int(std::max({sizeof(Scalars)...}));
  const auto blocks = unsigned(std::min(rows, Index{1} << 30));
  const auto launch = [&](auto threads, auto count) {
    launch_dependent(device, row_kernel<decltype(threads)::value, decltype(count)::value, Each>, blocks,
                     unsigned(decltype(threads)::value), 0, rows, each);
  };
  const auto with_threads = [&](auto count) {
    if (columns <= 1024) {
      launch(std::integral_constant<int, 32>{}, count);
    } else {
      launch(std::integral_constant<int, 256>{}, count);
    }
  };
  if (can_vectorise<wide>(views...)) {
    with_threads(std::integral_constant<int, wide>{});
  } else {
    with_threads(std::integral_constant<int, 1>{});
  }
}

/// Calls each(column) for a thread's vectors of a row; several are loaded at a time.
template <int threads, int count, class Each>
__device__ __forceinline__ void walk_row(Index columns, int thread, const Each& each) {
#pragma unroll 4
  for (Index column = thread * count; column < columns; column += threads * count) each(column);
}

/// `count` gains or biases from `column` on, which need not be aligned.
template <int count, class T, class S>
__device__ __forceinline__ Vector<T, count> load_factors(const S* from, Index column, T otherwise) {
  Vector<T, count> factors;
#pragma unroll
  for (int i = 0; i < count; ++i) factors.values[i] = from == nullptr ? otherwise : static_cast<T>(from[column + i]);
  return factors;
}

/// Calls each(vector) for a thread's vectors of a row, with pending rows added; stores the sums if they are kept.
/// Several vectors are loaded before the first is stored, which the compiler would not do by itself.
template <int threads, int count, class X, class Y, class Each>
__device__ __forceinline__ void walk_joined_row(const Joined<X, Y>& joined, Index t, int thread, const Each& each) {
  constexpr int at_a_time = 4, step = threads * count;
  using Numbers = Vector<compute_t<X>, count>;
  const Index columns = joined.x.columns;
  for (Index first = thread * count; first < columns; first += at_a_time * step) {
    Numbers vectors[at_a_time], pending[at_a_time] = {};
#pragma unroll
    for (int k = 0; k < at_a_time; ++k) {
      const Index column = first + k * step;
      if (column >= columns) break;
      vectors[k] = load_widened<count>(joined.x, t, column);
      if (joined.rows.data != nullptr) pending[k] = load_widened<count>(joined.rows, t, column);
    }
#pragma unroll
    for (int k = 0; k < at_a_time; ++k) {
      const Index column = first + k * step;
      if (column >= columns) break;
      if (joined.rows.data != nullptr) {
        for (int i = 0; i < count; ++i) vectors[k].values[i] += pending[k].values[i];
        store_narrowed<count>(vectors[k], joined.x, t, column);
      }
      if (joined.kept.data != nullptr) store_narrowed<count>(vectors[k], joined.kept, t, column);
      each(vectors[k]);
    }
  }
}

/// A view for a Joined that is only read.
template <class X>
MatrixView<std::remove_const_t<X>> writable(MatrixView<X> x) {
  return {const_cast<std::remove_const_t<X>*>(x.data), x.rows, x.columns, x.stride};
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
