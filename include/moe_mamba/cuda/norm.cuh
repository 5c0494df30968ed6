#pragma once

#include "moe_mamba/cuda/block/norm_backward.cuh"
#include "moe_mamba/cuda/pieces.cuh"
#include "moe_mamba/ops/norm.hpp"

/// Normalisation of rows on a CUDA device; the contract is in ops/norm.hpp. A row is shared by some threads, whose sums
/// run in the compute type; sums over rows, for the gradients of gain and bias, run in double, but over the few
/// rows of one warp.
namespace moe_mamba::cuda {

namespace detail {

/// each.operator()<threads, count>(row, thread): `threads` for each row, which go over it in runs of `count` elements.
template <int threads, int count, class Each>
__global__ void __launch_bounds__(threads) row_kernel(Index rows, Each each) {
  await_stream();
  release_stream();
  for (Index row = blockIdx.x; row < rows; row += gridDim.x) {
    each.template operator()<threads, count>(row, int(threadIdx.x));
  }
}

/// A warp for rows that keep no more busy, a block for others; `views` are what `each` goes through row by row.
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
  if (columns % wide == 0 && all_aligned<wide>(views...)) {
    with_threads(std::integral_constant<int, wide>{});
  } else {
    with_threads(std::integral_constant<int, 1>{});
  }
}

/// each(column) for the runs of a row that are a thread's, so that several are on their way at a time.
template <int threads, int count, class Each>
__device__ __forceinline__ void walk_row(Index columns, int thread, const Each& each) {
#pragma unroll 4
  for (Index column = thread * count; column < columns; column += threads * count) each(column);
}

/// `count` gains or biases from `column` on, which may not be aligned.
template <int count, class T, class S>
struct Factors {
  T values[count];
  __device__ __forceinline__ Factors(const S* from, Index column, T otherwise) {
#pragma unroll
    for (int i = 0; i < count; ++i) values[i] = from == nullptr ? otherwise : static_cast<T>(from[column + i]);
  }
};

/// each(run) for the runs of a row that are a thread's, with what is pending added to them; writes the sum where it is to
/// stay. Several runs are read before the first is written, which the compiler would not do by itself.
template <int threads, int count, class X, class Y, class Each>
__device__ __forceinline__ void walk_joined_row(const Joined<X, Y>& joined, Index t, int thread, const Each& each) {
  constexpr int together = 4, step = threads * count;
  using Numbers = Run<compute_t<X>, count>;
  const Index columns = joined.x.columns;
  for (Index first = thread * count; first < columns; first += together * step) {
    Numbers runs[together], pending[together] = {};
#pragma unroll
    for (int k = 0; k < together; ++k) {
      const Index column = first + k * step;
      if (column >= columns) break;
      runs[k] = load_numbers<count>(joined.x, t, column);
      if (joined.rows.data != nullptr) pending[k] = load_numbers<count>(joined.rows, t, column);
    }
#pragma unroll
    for (int k = 0; k < together; ++k) {
      const Index column = first + k * step;
      if (column >= columns) break;
      if (joined.rows.data != nullptr) {
        for (int i = 0; i < count; ++i) runs[k].values[i] += pending[k].values[i];
        store_numbers<count>(runs[k], joined.x, t, column);
      }
      if (joined.kept.data != nullptr) store_numbers<count>(runs[k], joined.kept, t, column);
      each(runs[k]);
    }
  }
}

/// A view to put into Joined where that is only read.
template <class X>
MatrixView<std::remove_const_t<X>> writable(MatrixView<X> x) {
  return {const_cast<std::remove_const_t<X>*>(x.data), x.rows, x.columns, x.stride};
}

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
    walk_joined_row<threads, count>(joined, t, thread, [&](const auto& run) {
      for (int i = 0; i < count; ++i) sum += run.values[i] * run.values[i];
    });
    sum = block_sum<threads>(sum);
    const T scale = static_cast<T>(1 / sqrt(double(sum) / double(x.columns) + epsilon));
    walk_row<threads, count>(x.columns, thread, [&](Index column) {
      auto run = load_numbers<count>(x, t, column);
      const Factors<count, T, S> gains(gain, column, T(1));
      for (int i = 0; i < count; ++i) run.values[i] *= scale * gains.values[i];
      store_numbers<count>(run, y, t, column);
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
  MatrixView<Y> kept;  // a copy of dx, where it has data

  template <int threads, int count>
  __device__ void operator()(Index t, int thread) const {
    T dot = 0;
    walk_row<threads, count>(x.columns, thread, [&](Index column) {
      const auto run = load_numbers<count>(x, t, column);
      const auto gradient = load_numbers<count>(dy, t, column);
      const Factors<count, T, S> gains(gain, column, T(1));
      for (int i = 0; i < count; ++i) dot += gradient.values[i] * gains.values[i] * run.values[i];
    });
    dot = block_sum<threads>(dot);
    const T scale = inverse[t];
    const T pull = -(dot / static_cast<T>(x.columns)) * scale * scale * scale;
    walk_row<threads, count>(x.columns, thread, [&](Index column) {
      const auto run = load_numbers<count>(x, t, column);
      const auto gradient = load_numbers<count>(dy, t, column);
      auto sum = load_numbers<count>(dx, t, column);
      const Factors<count, T, S> gains(gain, column, T(1));
      for (int i = 0; i < count; ++i) {
        sum.values[i] += scale * gradient.values[i] * gains.values[i] + pull * run.values[i];
      }
      store_numbers<count>(sum, dx, t, column);
      if (kept.data != nullptr) store_numbers<count>(sum, kept, t, column);
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
    walk_joined_row<threads, count>(joined, t, thread, [&](const auto& run) {
      for (int i = 0; i < count; ++i) sum += run.values[i];
    });
    const T average = block_sum<threads>(sum) / static_cast<T>(x.columns);
    T square = 0;
    walk_row<threads, count>(x.columns, thread, [&](Index column) {
      const auto run = load_numbers<count>(x, t, column);
      for (int i = 0; i < count; ++i) square += (run.values[i] - average) * (run.values[i] - average);
    });
    square = block_sum<threads>(square);
    const T scale = static_cast<T>(1 / sqrt(double(square) / double(x.columns) + epsilon));
    walk_row<threads, count>(x.columns, thread, [&](Index column) {
      auto run = load_numbers<count>(x, t, column);
      const Factors<count, T, S> gains(gain, column, T(1)), biases(bias, column, T(0));
      for (int i = 0; i < count; ++i) {
        run.values[i] = (run.values[i] - average) * scale * gains.values[i] + biases.values[i];
      }
      store_numbers<count>(run, y, t, column);
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
  MatrixView<Y> kept;  // a copy of dx, where it has data

  template <int threads, int count>
  __device__ void operator()(Index t, int thread) const {
    const T average = mean[t], scale = inverse[t];
    T total = 0, dot = 0;
    walk_row<threads, count>(x.columns, thread, [&](Index column) {
      const auto run = load_numbers<count>(x, t, column);
      const auto gradient = load_numbers<count>(dy, t, column);
      const Factors<count, T, S> gains(gain, column, T(1));
      for (int i = 0; i < count; ++i) {
        const T slope = gradient.values[i] * gains.values[i];
        total += slope;
        dot += slope * (run.values[i] - average);
      }
    });
    total = block_sum<threads>(total);
    dot = block_sum<threads>(dot);
    const T shift = -(total / static_cast<T>(x.columns)) * scale;
    const T pull = -(dot / static_cast<T>(x.columns)) * scale * scale * scale;
    walk_row<threads, count>(x.columns, thread, [&](Index column) {
      const auto run = load_numbers<count>(x, t, column);
      const auto gradient = load_numbers<count>(dy, t, column);
      auto sum = load_numbers<count>(dx, t, column);
      const Factors<count, T, S> gains(gain, column, T(1));
      for (int i = 0; i < count; ++i) {
        sum.values[i] += scale * gradient.values[i] * gains.values[i] + shift + pull * (run.values[i] - average);
      }
      store_numbers<count>(sum, dx, t, column);
      if (kept.data != nullptr) store_numbers<count>(sum, kept, t, column);
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

/// x += rows, kept = x, y = x · inverse · gain with inverse = 1 / sqrt(mean(x²) + epsilon); y may be x, gain null.
template <StorageScalar X, StorageScalar Y, StorageScalar S, ComputeScalar C>
void add_rms_norm(Device& device, const Joined<X, Y>& joined, const S* gain, double epsilon, MatrixView<Y> y,
                  C* inverse) {
  const detail::RmsNormRow<X, Y, S> row{joined, gain, epsilon, y, inverse};
  detail::for_rows(device, y.rows, y.columns, row, joined.x, joined.rows, joined.kept, y);
}

template <class X, StorageScalar Y, StorageScalar S, ComputeScalar C>
void rms_norm(Device& device, MatrixView<X> x, const S* gain, double epsilon, MatrixView<Y> y, C* inverse) {
  // Where nothing is added, x is not written.
  const Joined<std::remove_const_t<X>, Y> alone{{}, detail::writable(x), {}};
  add_rms_norm(device, alone, gain, epsilon, y, inverse);
}

/// dx and dgain are added to.
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

/// dx, dgain and dbias are added to.
template <StorageScalar X, class Y, StorageScalar S, ComputeScalar C>
void layer_norm_backward(Device& device, Input<X> x, const S* gain, const C* mean, const C* inverse, MatrixView<Y> dy,
                         MatrixView<X> dx, C* dgain, C* dbias, MatrixView<std::remove_const_t<Y>> kept = {}) {
  using Gradient = std::remove_const_t<Y>;
  detail::sum_columns<2>(device, x.rows, x.columns, detail::LayerNormColumn<X, Gradient>{x, dy, mean, inverse},
                         detail::AddColumnSums<C, 2>{{dgain, dbias}}, Arena(device.scratch()));
  const detail::LayerNormBackwardRow<X, Gradient, S> row{x, gain, mean, inverse, dy, dx, kept};
  detail::for_rows(device, x.rows, x.columns, row, x, dy, dx, kept);
}

}  // namespace moe_mamba::cuda
