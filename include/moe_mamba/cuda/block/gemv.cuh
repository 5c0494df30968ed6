#pragma once

#include "moe_mamba/cuda/block/rounding.cuh"
#include "moe_mamba/cuda/pieces.cuh"
#include "moe_mamba/ops/linear.hpp"

/// Products of a few rows, as in generation: they read each weight once or twice, so that all there is to do is to read
/// them fast. Nothing is rounded but the sums.
namespace moe_mamba::cuda::detail {

inline constexpr int gemv_threads = 128, gemv_warps = gemv_threads / warp_size;

/// y = x Wᵀ: `split` warps for each column of y and `rows` rows, which blockIdx.y tells. With groups (count > 0; one row at a
/// time then), the matrix is that of the row's group, `step` elements after the one before, and rows behind all groups
/// are left alone. `wide`: rows of x and of the matrices are aligned to 16 bytes and whole runs of as many.
template <bool wide, int rows, int split, class C, class S>
__global__ void __launch_bounds__(gemv_threads)
    gemv_kernel(Groups groups, MatrixView<const C> x, const S* weight, Index step, Index stride, MatrixView<C> y) {
  const int lane = int(threadIdx.x) % warp_size, warp = int(threadIdx.x) / warp_size;
  const Index first_row = Index(blockIdx.y) * rows;
  const Index column = Index(blockIdx.x) * (gemv_warps / split) + warp / split;
  if (column >= y.columns) return;  // a whole block where warps share a column: then it has no other
  if (groups.count > 0) {
    Index group = -1;
    for (Index first = 0; group < 0; first += warp_size) {
      if (first >= groups.count) return;
      const Index g = first + lane;
      const bool mine = g < groups.count && groups.offsets[g] <= first_row && first_row < groups.offsets[g + 1];
      const unsigned found = __ballot_sync(whole_warp, mine);
      if (found != 0) group = first + __ffs(int(found)) - 1;
    }
    weight += group * step;
  }

  // The last row again in place of those that are not there.
  const auto row = [&](int r) { return min(first_row + r, y.rows - 1); };
  const S* const line = weight + column * stride;
  C sums[rows] = {};
  if constexpr (wide) {
    constexpr int count = 16 / int(sizeof(S)), part = 16 / int(sizeof(C));
#pragma unroll 4
    for (Index i = (warp % split * warp_size + lane) * count; i < x.columns; i += split * warp_size * count) {
      const auto w = *reinterpret_cast<const Run<S, count>*>(line + i);
      for (int r = 0; r < rows; ++r) {
        for (int j = 0; j < count; j += part) {
          const auto v = load_run<part>(x, row(r), i + j);
          for (int k = 0; k < part; ++k) sums[r] += v.values[k] * static_cast<C>(w.values[j + k]);
        }
      }
    }
  } else {
#pragma unroll 4
    for (Index i = warp % split * warp_size + lane; i < x.columns; i += split * warp_size) {
      const C w = static_cast<C>(line[i]);
      for (int r = 0; r < rows; ++r) sums[r] += x(row(r), i) * w;
    }
  }
  if constexpr (split == 1) {
    for (int r = 0; r < rows; ++r) {
      const C sum = warp_sum(sums[r]);
      if (lane == 0 && first_row + r < y.rows) y(first_row + r, column) = sum;
    }
  } else {
    static_assert(split == gemv_warps);
    __shared__ C shared[rows][split];
    for (int r = 0; r < rows; ++r) {
      const C sum = warp_sum(sums[r]);
      if (lane == 0) shared[r][warp] = sum;
    }
    __syncthreads();
    if (int(threadIdx.x) >= rows || first_row + threadIdx.x >= y.rows) return;
    C sum = shared[threadIdx.x][0];
    for (int w = 1; w < split; ++w) sum += shared[threadIdx.x][w];
    y(first_row + threadIdx.x, column) = sum;
  }
}

template <int rows, class C, class S>
void gemv(Device& device, Groups groups, MatrixView<const C> x, const S* weight, Index step, Index stride,
          MatrixView<C> y) {
  constexpr Index count = 16 / Index(sizeof(S));
  const bool wide =
      aligned_to_16(x.data, x.stride) && aligned_to_16(weight, stride) && step % count == 0 && x.columns % count == 0;
  // Long sums over few columns take several warps each, or too little would be on its way at a time. Whether they do
  // depends on the matrix alone, so that a row's result does not change with the number of rows.
  constexpr Index enough_warps = 24;  // for each processor
  const bool split = y.columns < enough_warps * device.processors() && x.columns >= 2 * gemv_threads * count;
  const auto kernel =
      split ? (wide ? gemv_kernel<true, rows, gemv_warps, C, S> : gemv_kernel<false, rows, gemv_warps, C, S>)
            : (wide ? gemv_kernel<true, rows, 1, C, S> : gemv_kernel<false, rows, 1, C, S>);
  const dim3 blocks(unsigned(ceiling_divide<Index>(y.columns, split ? 1 : gemv_warps)),
                    unsigned(ceiling_divide<Index>(y.rows, rows)));
  kernel<<<blocks, gemv_threads, 0, device.stream()>>>(groups, x, weight, step, stride, y);
  check_launch("gemv_kernel");
}

}  // namespace moe_mamba::cuda::detail
