#pragma once

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/cuda/common/reduce.cuh"
#include "moe_mamba/cuda/common/sums.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/cuda/norm/rms_norm_backward.cuh"
#include "moe_mamba/cuda/norm/row_walk.cuh"
#include "moe_mamba/ops/norm.hpp"

/// RMSNorm on a CUDA device; the contract is in ops/norm.hpp. For a row x of D numbers, with gain w:
///
///   r = 1 / sqrt(mean(x²) + epsilon)      y = x r w
///   dx = r w dy - x r³ Σ (dy w x) / D     dw = Σ_rows dy x r
///
/// The threads of a warp or a block share a row and sum over it in the compute type. The sums over rows for dw are in
/// double, except over the few rows of one warp.
namespace moe_mamba::inline v0_2::cuda {

namespace detail {

template <class X, class Y, class S>
struct RmsNormRow {
  using T = compute_t<std::remove_const_t<X>>;
  Joined<X, Y> joined;
  const S* gain;
  double epsilon;
  MatrixView<Y> y;
  T* inverse;

  template <int threads, int count>
  __device__ void operator()(Index t, int thread) const {
    const MatrixView<const X> x = joined.x;
    T sum = 0;
    walk_joined_row<threads, count>(joined, t, thread, [&](const auto& vector) {
      for (int i = 0; i < count; ++i) sum += vector.values[i] * vector.values[i];
    });
    sum = block_sum<threads>(sum);
    const T scale = static_cast<T>(1 / sqrt(double(sum) / double(x.columns) + epsilon));
    walk_row<threads, count>(x.columns, thread, [&](Index column) {
      auto vector = load_widened<count>(x, t, column);
      const auto gains = load_factors<count, T>(gain, column, T(1));
      for (int i = 0; i < count; ++i) vector.values[i] *= scale * gains.values[i];
      store_narrowed<count>(vector, y, t, column);
    });
    if (thread == 0) inverse[t] = scale;
  }
};

template <class X, class Y, class S>
struct RmsNormBackwardRow {
  using T = compute_t<X>;
  MatrixView<const X> x;
  const S* gain;
  const T* inverse;
  MatrixView<const Y> dy;
  MatrixView<X> dx;
  MatrixView<Y> kept;  // a copy of dx, if it has data

  template <int threads, int count>
  __device__ void operator()(Index t, int thread) const {
    T dot = 0;
    walk_row<threads, count>(x.columns, thread, [&](Index column) {
      const auto vector = load_widened<count>(x, t, column);
      const auto gradient = load_widened<count>(dy, t, column);
      const auto gains = load_factors<count, T>(gain, column, T(1));
      for (int i = 0; i < count; ++i) dot += gradient.values[i] * gains.values[i] * vector.values[i];
    });
    dot = block_sum<threads>(dot);
    const T scale = inverse[t];
    const T x_factor = -(dot / static_cast<T>(x.columns)) * scale * scale * scale;
    walk_row<threads, count>(x.columns, thread, [&](Index column) {
      const auto vector = load_widened<count>(x, t, column);
      const auto gradient = load_widened<count>(dy, t, column);
      auto sum = load_widened<count>(dx, t, column);
      const auto gains = load_factors<count, T>(gain, column, T(1));
      for (int i = 0; i < count; ++i) {
        sum.values[i] += scale * gradient.values[i] * gains.values[i] + x_factor * vector.values[i];
      }
      store_narrowed<count>(sum, dx, t, column);
      if (kept.data != nullptr) store_narrowed<count>(sum, kept, t, column);
    });
  }
};

template <class X, class Y>
struct RmsNormColumn {
  MatrixView<const X> x;
  MatrixView<const Y> dy;
  const compute_t<X>* inverse;
  __device__ void operator()(Index t, Index i, double (&sums)[1]) const {
    sums[0] += double(dy(t, i)) * double(x(t, i)) * double(inverse[t]);
  }
};

}  // namespace detail

/// x += rows, kept = x, y = x · inverse · gain with inverse = 1 / sqrt(mean(x²) + epsilon); y may be x, and gain may be
/// null.
template <StorageScalar X, StorageScalar Y, StorageScalar S, ComputeScalar C>
void add_rms_norm(Device& device, const Joined<X, Y>& joined, const S* gain, double epsilon, MatrixView<Y> y,
                  C* inverse) {
  const detail::RmsNormRow<X, Y, S> row{joined, gain, epsilon, y, inverse};
  detail::for_rows(device, y.rows, y.columns, row, joined.x, joined.rows, joined.kept, y);
}

template <class X, StorageScalar Y, StorageScalar S, ComputeScalar C>
void rms_norm(Device& device, MatrixView<X> x, const S* gain, double epsilon, MatrixView<Y> y, C* inverse) {
  // x is not written if nothing is added to it.
  const Joined<std::remove_const_t<X>, Y> alone{{}, detail::writable(x), {}};
  add_rms_norm(device, alone, gain, epsilon, y, inverse);
}

/// Accumulates into dx and dgain.
template <StorageScalar X, class Y, StorageScalar S, ComputeScalar C>
void rms_norm_backward(Device& device, Input<X> x, const S* gain, const C* inverse, MatrixView<Y> dy, MatrixView<X> dx,
                       C* dgain, MatrixView<std::remove_const_t<Y>> kept = {}) {
  using Gradient = std::remove_const_t<Y>;
  if (gain != nullptr) {
    const detail::RmsNormGradients<X, Gradient, S> norm{x, gain, inverse, dy, dx, kept};
    if (detail::rms_norm_backward_in_one(device, norm, dgain)) return;
    detail::sum_columns<1>(device, x.rows, x.columns, detail::RmsNormColumn<X, Gradient>{x, dy, inverse},
                           detail::AddColumnSums<C, 1>{{dgain}}, Arena(device.scratch()));
  }
  const detail::RmsNormBackwardRow<X, Gradient, S> row{x, gain, inverse, dy, dx, kept};
  detail::for_rows(device, x.rows, x.columns, row, x, dy, dx, kept);
}

}  // namespace moe_mamba::inline v0_2::cuda
