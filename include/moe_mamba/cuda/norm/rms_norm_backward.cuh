#pragma once

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/cuda/common/launch.cuh"
#include "moe_mamba/cuda/common/reduce.cuh"
#include "moe_mamba/cuda/common/sums.cuh"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/device.hpp"

/// The gradients of RMSNorm with respect to its input and its gain in one pass over memory, for rows that a warp holds
/// in registers; rms_norm.cuh has the formulas. A block takes some rows:
///
///   for each row of the warp:
///     load x and dy; add dy x r to the warp's sums of dw, in registers
///     dot = Σ (dy w x), over the warp;  dx += r w dy - x r³ dot / D
///   barrier; add the warps' sums of dw in order → partial
///
/// A separate launch adds the blocks' partial sums to dw.
namespace moe_mamba::inline v0_2::cuda::detail {

/// Warps of a block, each with its own rows, and the most columns that a warp holds.
inline constexpr int norm_warps = 8, norm_threads = norm_warps * warp_size, most_norm_columns = 1024;

/// Rows per block; a block writes one partial sum of dgain.
inline Index norm_rows_per_block(const Device& device, Index rows) {
  const Index wanted = ceiling_divide<Index>(rows, 2 * Index(device.processors()));
  return ceiling_divide<Index>(wanted, norm_warps) * norm_warps;
}

template <class X, class Y, class S>
struct RmsNormGradients {
  MatrixView<const X> x;
  const S* gain;
  const compute_t<X>* inverse;
  MatrixView<const Y> dy;
  MatrixView<X> dx;
  MatrixView<Y> kept;  // a copy of dx, if it has data
};

/// dx += …, and partial[block][column] = the sum over the block's rows of dy · x · inverse.
template <int count, class X, class Y, class S>
__global__ void __launch_bounds__(norm_threads)
    rms_norm_backward_kernel(RmsNormGradients<X, Y, S> norm, Index rows_per_block, double* partial) {
  await_stream();
  release_stream();
  using T = compute_t<X>;
  constexpr int vectors = most_norm_columns / (warp_size * count);
  __shared__ T shared[norm_warps][most_norm_columns];
  const int lane = lane_index(), warp = warp_index();
  const Index columns = norm.x.columns, first = Index(blockIdx.x) * rows_per_block;
  const Index last = min(first + rows_per_block, norm.x.rows);
  const auto column = [&](int k) { return Index((k * warp_size + lane) * count); };
  T sums[vectors][count] = {};
  for (Index t = first + warp; t < last; t += norm_warps) {
    Vector<T, count> x[vectors] = {}, slope[vectors] = {};
    T dot = 0;
#pragma unroll
    for (int k = 0; k < vectors; ++k) {
      if (column(k) >= columns) break;
      x[k] = load_widened<count>(norm.x, t, column(k));
      slope[k] = load_widened<count>(norm.dy, t, column(k));
    }
    const T scale = norm.inverse[t];
#pragma unroll
    for (int k = 0; k < vectors; ++k) {
      if (column(k) >= columns) break;
#pragma unroll
      for (int i = 0; i < count; ++i) {
        sums[k][i] += slope[k].values[i] * (x[k].values[i] * scale);
        slope[k].values[i] *= static_cast<T>(norm.gain[column(k) + i]);
        dot += slope[k].values[i] * x[k].values[i];
      }
    }
    const T x_factor = -(warp_sum(dot) / static_cast<T>(columns)) * scale * scale * scale;
#pragma unroll
    for (int k = 0; k < vectors; ++k) {
      if (column(k) >= columns) break;
      auto dx = load_widened<count>(norm.dx, t, column(k));
#pragma unroll
      for (int i = 0; i < count; ++i) dx.values[i] += scale * slope[k].values[i] + x_factor * x[k].values[i];
      store_narrowed<count>(dx, norm.dx, t, column(k));
      if (norm.kept.data != nullptr) store_narrowed<count>(dx, norm.kept, t, column(k));
    }
  }
#pragma unroll
  for (int k = 0; k < vectors; ++k) {
#pragma unroll
    for (int i = 0; i < count; ++i) shared[warp][column(k) + i] = sums[k][i];
  }
  __syncthreads();
  for (Index i = threadIdx.x; i < columns; i += norm_threads) {
    double sum = 0;
    for (int w = 0; w < norm_warps; ++w) sum += double(shared[w][i]);
    partial[Index(blockIdx.x) * columns + i] = sum;
  }
}

/// Launches this kernel if it supports such rows, and returns whether it does.
template <class X, class Y, class S, class C>
bool rms_norm_backward_in_one(Device& device, const RmsNormGradients<X, Y, S>& norm, C* dgain) {
  constexpr int wide = 16 / int(std::max(sizeof(X), sizeof(Y)));
  if constexpr (sizeof(C) == 8) {
    return false;
  } else {
    const Index columns = norm.x.columns, per_block = norm_rows_per_block(device, norm.x.rows);
    if (columns > most_norm_columns || norm.x.rows == 0) return false;
    if (!can_vectorise<wide>(norm.x, norm.dy, norm.dx, norm.kept)) return false;
    const Index blocks = ceiling_divide(norm.x.rows, per_block);
    Arena arena(device.scratch());
    double* const partial = arena.take<double>(blocks * columns);
    launch_dependent(device, rms_norm_backward_kernel<wide, X, Y, S>, unsigned(blocks), unsigned(norm_threads), 0, norm,
                     per_block, partial);
    total_columns<1>(device, partial, blocks, columns, AddColumnSums<C, 1>{{dgain}});
    return true;
  }
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
