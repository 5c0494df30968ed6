#pragma once

#include "moe_mamba/cuda/pieces.cuh"
#include "moe_mamba/ops/norm.hpp"

/// Normalisation of rows on a CUDA device; the contract is in ops/norm.hpp. A row is shared by some threads, whose sums
/// run in the compute type; sums over rows, for the gradients of gain and bias, run in double.
namespace moe_mamba::cuda {

namespace detail {

/// launch(threads for each row, as a type): a warp for rows that keep no more busy.
template <class Launch>
void with_row_threads(Index columns, const Launch& launch) {
  if (columns <= 1024) {
    launch(std::integral_constant<int, 32>{});
  } else {
    launch(std::integral_constant<int, 256>{});
  }
}

/// each.operator()<threads>(row, thread): a block of `threads` for each row.
template <int threads, class Each>
__global__ void __launch_bounds__(threads) row_kernel(Index rows, Each each) {
  for (Index row = blockIdx.x; row < rows; row += gridDim.x) each.template operator()<threads>(row, int(threadIdx.x));
}

template <class Each>
void for_rows(Device& device, Index rows, Index columns, const Each& each) {
  if (rows == 0) return;
  with_row_threads(columns, [&](auto threads) {
    row_kernel<decltype(threads)::value>
        <<<unsigned(std::min(rows, Index{1} << 30)), decltype(threads)::value, 0, device.stream()>>>(rows, each);
  });
  check_launch("row_kernel");
}

template <class C, class S>
struct RmsNormRow {
  MatrixView<const C> x;
  const S* gain;
  double epsilon;
  MatrixView<C> y;
  C* inverse;

  template <int threads>
  __device__ void operator()(Index t, int thread) const {
    const C* from = x.row(t);
    C sum = 0;
    for (Index i = thread; i < x.columns; i += threads) sum += from[i] * from[i];
    sum = block_sum<threads>(sum);
    const C scale = static_cast<C>(1 / sqrt(double(sum) / double(x.columns) + epsilon));
    for (Index i = thread; i < x.columns; i += threads)
      y(t, i) = from[i] * scale * (gain == nullptr ? C(1) : static_cast<C>(gain[i]));
    if (thread == 0) inverse[t] = scale;
  }
};

template <class C, class S>
struct RmsNormBackwardRow {
  MatrixView<const C> x;
  const S* gain;
  const C* inverse;
  MatrixView<const C> dy;
  MatrixView<C> dx;

  template <int threads>
  __device__ void operator()(Index t, int thread) const {
    const auto factor = [&](Index i) { return gain == nullptr ? C(1) : static_cast<C>(gain[i]); };
    C dot = 0;
    for (Index i = thread; i < x.columns; i += threads) dot += dy(t, i) * factor(i) * x(t, i);
    dot = block_sum<threads>(dot);
    const C scale = inverse[t];
    const C pull = -(dot / static_cast<C>(x.columns)) * scale * scale * scale;
    for (Index i = thread; i < x.columns; i += threads) {
      dx(t, i) += scale * dy(t, i) * factor(i) + pull * x(t, i);
    }
  }
};

template <class C>
struct RmsNormColumn {
  MatrixView<const C> x, dy;
  const C* inverse;
  __device__ void operator()(Index t, Index i, double (&sums)[1]) const {
    sums[0] += double(dy(t, i)) * double(x(t, i)) * double(inverse[t]);
  }
};

template <class C, class S>
struct LayerNormRow {
  MatrixView<const C> x;
  const S* gain;
  const S* bias;
  double epsilon;
  MatrixView<C> y;
  C* mean;
  C* inverse;

  template <int threads>
  __device__ void operator()(Index t, int thread) const {
    const C* from = x.row(t);
    C sum = 0;
    for (Index i = thread; i < x.columns; i += threads) sum += from[i];
    const C average = block_sum<threads>(sum) / static_cast<C>(x.columns);
    C square = 0;
    for (Index i = thread; i < x.columns; i += threads) square += (from[i] - average) * (from[i] - average);
    square = block_sum<threads>(square);
    const C scale = static_cast<C>(1 / sqrt(double(square) / double(x.columns) + epsilon));
    for (Index i = thread; i < x.columns; i += threads) {
      y(t, i) = (from[i] - average) * scale * static_cast<C>(gain[i]) + static_cast<C>(bias[i]);
    }
    if (thread != 0) return;
    mean[t] = average;
    inverse[t] = scale;
  }
};

template <class C, class S>
struct LayerNormBackwardRow {
  MatrixView<const C> x;
  const S* gain;
  const C* mean;
  const C* inverse;
  MatrixView<const C> dy;
  MatrixView<C> dx;

  template <int threads>
  __device__ void operator()(Index t, int thread) const {
    const C average = mean[t], scale = inverse[t];
    C total = 0, dot = 0;
    for (Index i = thread; i < x.columns; i += threads) {
      const C gradient = dy(t, i) * static_cast<C>(gain[i]);
      total += gradient;
      dot += gradient * (x(t, i) - average);
    }
    total = block_sum<threads>(total);
    dot = block_sum<threads>(dot);
    const C shift = -(total / static_cast<C>(x.columns)) * scale;
    const C pull = -(dot / static_cast<C>(x.columns)) * scale * scale * scale;
    for (Index i = thread; i < x.columns; i += threads) {
      dx(t, i) += scale * dy(t, i) * static_cast<C>(gain[i]) + shift + pull * (x(t, i) - average);
    }
  }
};

template <class C>
struct LayerNormColumn {
  MatrixView<const C> x, dy;
  const C* mean;
  const C* inverse;
  __device__ void operator()(Index t, Index i, double (&sums)[2]) const {
    const double gradient = double(dy(t, i));
    sums[0] += gradient * (double(x(t, i)) - double(mean[t])) * double(inverse[t]);
    sums[1] += gradient;
  }
};

}  // namespace detail

/// y = x · inverse · gain with inverse = 1 / sqrt(mean(x²) + epsilon); y may be x, gain null.
template <ComputeScalar C, StorageScalar S>
void rms_norm(Device& device, Input<C> x, const S* gain, double epsilon, MatrixView<C> y, C* inverse) {
  detail::for_rows(device, x.rows, x.columns, detail::RmsNormRow<C, S>{x, gain, epsilon, y, inverse});
}

/// dx and dgain are added to.
template <ComputeScalar C, StorageScalar S>
void rms_norm_backward(Device& device, Input<C> x, const S* gain, const C* inverse, Input<C> dy, MatrixView<C> dx,
                       C* dgain) {
  if (gain != nullptr) {
    detail::sum_columns<1>(device, x.rows, x.columns, detail::RmsNormColumn<C>{x, dy, inverse},
                           detail::AddColumnSums<C, 1>{{dgain}}, Arena(device.scratch()));
  }
  detail::for_rows(device, x.rows, x.columns, detail::RmsNormBackwardRow<C, S>{x, gain, inverse, dy, dx});
}

/// y = (x - mean) · inverse · gain + bias with inverse = 1 / sqrt(mean((x - mean)²) + epsilon); y may be x.
template <ComputeScalar C, StorageScalar S>
void layer_norm(Device& device, Input<C> x, const S* gain, const S* bias, double epsilon, MatrixView<C> y, C* mean,
                C* inverse) {
  detail::for_rows(device, x.rows, x.columns, detail::LayerNormRow<C, S>{x, gain, bias, epsilon, y, mean, inverse});
}

/// dx, dgain and dbias are added to.
template <ComputeScalar C, StorageScalar S>
void layer_norm_backward(Device& device, Input<C> x, const S* gain, const C* mean, const C* inverse, Input<C> dy,
                         MatrixView<C> dx, C* dgain, C* dbias) {
  detail::sum_columns<2>(device, x.rows, x.columns, detail::LayerNormColumn<C>{x, dy, mean, inverse},
                         detail::AddColumnSums<C, 2>{{dgain, dbias}}, Arena(device.scratch()));
  detail::for_rows(device, x.rows, x.columns, detail::LayerNormBackwardRow<C, S>{x, gain, mean, inverse, dy, dx});
}

}  // namespace moe_mamba::cuda
