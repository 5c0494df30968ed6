#pragma once

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/cuda/common/reduce.cuh"
#include "moe_mamba/cuda/common/sums.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/cuda/norm/row_walk.cuh"

/// LayerNorm on a CUDA device; the contract is in ops/norm.hpp. For a row x of D numbers, with gain w and bias b:
///
///   z = (x - mean(x)) r,  r = 1 / sqrt(mean((x - mean(x))²) + epsilon)      y = z w + b
///   dx = r (dy w - mean(dy w) - z mean(dy w z))      dw = Σ_rows dy z      db = Σ_rows dy
///
/// Rows are divided among threads as in rms_norm.cuh.
namespace moe_mamba::inline v0_2::cuda {

namespace detail {

template <class X, class Y, class S>
struct LayerNormRow {
  using T = compute_t<std::remove_const_t<X>>;
  Joined<X, Y> joined;
  const S* gain;
  const S* bias;
  double epsilon;
  MatrixView<Y> y;
  T* mean;
  T* inverse;

  template <int threads, int count>
  __device__ void operator()(Index t, int thread) const {
    const MatrixView<const X> x = joined.x;
    T sum = 0;
    walk_joined_row<threads, count>(joined, t, thread, [&](const auto& vector) {
      for (int i = 0; i < count; ++i) sum += vector.values[i];
    });
    const T average = block_sum<threads>(sum) / static_cast<T>(x.columns);
    T square = 0;
    walk_row<threads, count>(x.columns, thread, [&](Index column) {
      const auto vector = load_widened<count>(x, t, column);
      for (int i = 0; i < count; ++i) square += (vector.values[i] - average) * (vector.values[i] - average);
    });
    square = block_sum<threads>(square);
    const T scale = static_cast<T>(1 / sqrt(double(square) / double(x.columns) + epsilon));
    walk_row<threads, count>(x.columns, thread, [&](Index column) {
      auto vector = load_widened<count>(x, t, column);
      const auto gains = load_factors<count, T>(gain, column, T(1)), biases = load_factors<count>(bias, column, T(0));
      for (int i = 0; i < count; ++i) {
        vector.values[i] = (vector.values[i] - average) * scale * gains.values[i] + biases.values[i];
      }
      store_narrowed<count>(vector, y, t, column);
    });
    if (thread != 0) return;
    mean[t] = average;
    inverse[t] = scale;
  }
};

template <class X, class Y, class S>
struct LayerNormBackwardRow {
  using T = compute_t<X>;
  MatrixView<const X> x;
  const S* gain;
  const T* mean;
  const T* inverse;
  MatrixView<const Y> dy;
  MatrixView<X> dx;
  MatrixView<Y> kept;  // a copy of dx, if it has data

  template <int threads, int count>
  __device__ void operator()(Index t, int thread) const {
    const T average = mean[t], scale = inverse[t];
    T total = 0, dot = 0;
    walk_row<threads, count>(x.columns, thread, [&](Index column) {
      const auto vector = load_widened<count>(x, t, column);
      const auto gradient = load_widened<count>(dy, t, column);
      const auto gains = load_factors<count, T>(gain, column, T(1));
      for (int i = 0; i < count; ++i) {
        const T slope = gradient.values[i] * gains.values[i];
        total += slope;
        dot += slope * (vector.values[i] - average);
      }
    });
    total = block_sum<threads>(total);
    dot = block_sum<threads>(dot);
    const T shift = -(total / static_cast<T>(x.columns)) * scale;
    const T x_factor = -(dot / static_cast<T>(x.columns)) * scale * scale * scale;
    walk_row<threads, count>(x.columns, thread, [&](Index column) {
      const auto vector = load_widened<count>(x, t, column);
      const auto gradient = load_widened<count>(dy, t, column);
      auto sum = load_widened<count>(dx, t, column);
      const auto gains = load_factors<count, T>(gain, column, T(1));
      for (int i = 0; i < count; ++i) {
        sum.values[i] += scale * gradient.values[i] * gains.values[i] + shift + x_factor * (vector.values[i] - average);
      }
      store_narrowed<count>(sum, dx, t, column);
      if (kept.data != nullptr) store_narrowed<count>(sum, kept, t, column);
    });
  }
};

template <class X, class Y>
struct LayerNormColumn {
  MatrixView<const X> x;
  MatrixView<const Y> dy;
  const compute_t<X>* mean;
  const compute_t<X>* inverse;
  __device__ void operator()(Index t, Index i, double (&sums)[2]) const {
    const double gradient = double(dy(t, i));
    sums[0] += gradient * (double(x(t, i)) - double(mean[t])) * double(inverse[t]);
    sums[1] += gradient;
  }
};

}  // namespace detail

/// x += rows, kept = x, y = (x - mean) · inverse · gain + bias with inverse = 1 / sqrt(mean((x - mean)²) + epsilon); y
/// may be x.
template <StorageScalar X, StorageScalar Y, StorageScalar S, ComputeScalar C>
void add_layer_norm(Device& device, const Joined<X, Y>& joined, const S* gain, const S* bias, double epsilon,
                    MatrixView<Y> y, C* mean, C* inverse) {
  const detail::LayerNormRow<X, Y, S> row{joined, gain, bias, epsilon, y, mean, inverse};
  detail::for_rows(device, y.rows, y.columns, row, joined.x, joined.rows, joined.kept, y);
}

template <class X, StorageScalar Y, StorageScalar S, ComputeScalar C>
void layer_norm(Device& device, MatrixView<X> x, const S* gain, const S* bias, double epsilon, MatrixView<Y> y, C* mean,
                C* inverse) {
  const Joined<std::remove_const_t<X>, Y> alone{{}, detail::writable(x), {}};
  add_layer_norm(device, alone, gain, bias, epsilon, y, mean, inverse);
}

/// Accumulates into dx, dgain and dbias.
template <StorageScalar X, class Y, StorageScalar S, ComputeScalar C>
void layer_norm_backward(Device& device, Input<X> x, const S* gain, const C* mean, const C* inverse, MatrixView<Y> dy,
                         MatrixView<X> dx, C* dgain, C* dbias, MatrixView<std::remove_const_t<Y>> kept = {}) {
  using Gradient = std::remove_const_t<Y>;
  detail::sum_columns<2>(device, x.rows, x.columns, detail::LayerNormColumn<X, Gradient>{x, dy, mean, inverse},
                         detail::AddColumnSums<C, 2>{{dgain, dbias}}, Arena(device.scratch()));
  const detail::LayerNormBackwardRow<X, Gradient, S> row{x, gain, mean, inverse, dy, dx, kept};
  detail::for_rows(device, x.rows, x.columns, row, x, dy, dx, kept);
}

}  // namespace moe_mamba::inline v0_2::cuda
