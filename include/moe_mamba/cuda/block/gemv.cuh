#pragma once

#include "moe_mamba/cuda/block/rounding.cuh"
#include "moe_mamba/cuda/pieces.cuh"
#include "moe_mamba/ops/linear.hpp"

/// Products of a few rows, as in generation: they read each weight once or twice, so that all there is to do is to read
/// them fast. Nothing is rounded but the sums.
namespace moe_mamba::cuda::detail {

inline constexpr int gemv_threads = 128;

/// y = x Wᵀ: a warp for each element of y, blockIdx.y the row. With groups (count > 0), the matrix is that of the row's
/// group, `step` elements after the one before, and rows behind all groups are left alone. `wide`: rows of x and of the
/// matrices are aligned to 16 bytes and a whole number of chunks long.
template <bool wide, class C, class S>
__global__ void __launch_bounds__(gemv_threads)
    gemv_kernel(Groups groups, MatrixView<const C> x, const S* weight, Index step, Index stride, MatrixView<C> y) {
  const int lane = int(threadIdx.x) % warp_size;
  const Index row = blockIdx.y;
  const Index column = Index(blockIdx.x) * (gemv_threads / warp_size) + threadIdx.x / warp_size;
  if (column >= y.columns) return;
  if (groups.count > 0) {
    Index group = -1;
    for (Index first = 0; group < 0; first += warp_size) {
      if (first >= groups.count) return;
      const Index g = first + lane;
      const bool mine = g < groups.count && groups.offsets[g] <= row && row < groups.offsets[g + 1];
      const unsigned found = __ballot_sync(whole_warp, mine);
      if (found != 0) group = first + __ffs(int(found)) - 1;
    }
    weight += group * step;
  }

  const C* const from = x.row(row);
  const S* const line = weight + column * stride;
  C sum = 0;
  if constexpr (wide) {
    constexpr int count = 16 / int(sizeof(S));
#pragma unroll 4
    for (Index i = lane * count; i < x.columns; i += warp_size * count) {
      const auto w = *reinterpret_cast<const Chunk<S, count>*>(line + i);
      const auto v = *reinterpret_cast<const Chunk<C, count>*>(from + i);
      for (int j = 0; j < count; ++j) sum += v.values[j] * static_cast<C>(w.values[j]);
    }
  } else {
#pragma unroll 4
    for (Index i = lane; i < x.columns; i += warp_size) sum += from[i] * static_cast<C>(line[i]);
  }
  sum = warp_sum(sum);
  if (lane == 0) y(row, column) = sum;
}

template <class C, class S>
void gemv(Device& device, Groups groups, MatrixView<const C> x, const S* weight, Index step, Index stride,
          MatrixView<C> y) {
  constexpr Index count = 16 / Index(sizeof(S));
  const bool wide =
      aligned_to_16(x.data, x.stride) && aligned_to_16(weight, stride) && step % count == 0 && x.columns % count == 0;
  const dim3 blocks(unsigned(ceiling_divide<Index>(y.columns, gemv_threads / warp_size)), unsigned(y.rows));
  if (wide) {
    gemv_kernel<true><<<blocks, gemv_threads, 0, device.stream()>>>(groups, x, weight, step, stride, y);
  } else {
    gemv_kernel<false><<<blocks, gemv_threads, 0, device.stream()>>>(groups, x, weight, step, stride, y);
  }
  check_launch("gemv_kernel");
}

}  // namespace moe_mamba::cuda::detail
