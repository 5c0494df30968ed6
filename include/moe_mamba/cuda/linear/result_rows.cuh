#pragma once

#include <type_traits>

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/ops/linear.hpp"

/// Where grouped products put their rows.
namespace moe_mamba::inline v0_2::cuda::detail {

/// Rows of a matrix: one after the other from `data` on or, with `places`, where that says. Has what a MatrixView has.
template <class T>
struct ResultRows {
  T* data;
  Index rows, columns, stride;
  const Index* places = nullptr;  // of each of the rows, counted from `data`

  ResultRows(MatrixView<T> matrix)
      : data(matrix.data), rows(matrix.rows), columns(matrix.columns), stride(matrix.stride) {}
  /// `count` scattered rows.
  ResultRows(const ScatteredRows<T>& scattered, Index count)
      : data(scattered.to.data),
        rows(count),
        columns(scattered.to.columns),
        stride(scattered.to.stride),
        places(scattered.places) {}
  __device__ ResultRows(T* data_, Index rows_, Index columns_, Index stride_, const Index* places_)
      : data(data_), rows(rows_), columns(columns_), stride(stride_), places(places_) {}

  __device__ T* row(Index index) const { return data + (places == nullptr ? index : places[index]) * stride; }
  __device__ ResultRows row_block(Index first, Index count) const {
    if (places == nullptr) return {data + first * stride, count, columns, stride, nullptr};
    return {data, count, columns, stride, places + first};
  }
  __device__ ResultRows column_block(Index first, Index count) const {
    return {data + first, rows, count, stride, places};
  }
};

}  // namespace moe_mamba::inline v0_2::cuda::detail
