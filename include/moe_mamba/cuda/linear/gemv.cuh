#pragma once

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cuda/common/launch.cuh"
#include "moe_mamba/cuda/common/reduce.cuh"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/cuda/linear/result_rows.cuh"
#include "moe_mamba/ops/linear.hpp"

/// Products of a few rows, as in generation: they read each weight once or twice, so that all there is to do is to read
/// them fast. Nothing is rounded but the sums.
namespace moe_mamba::inline v0_2::cuda::detail {

inline constexpr int gemv_threads = 128, gemv_warps = gemv_threads / warp_size;

/// y = x Wᵀ: `split` warps for each `own` columns of y and `rows` rows, which blockIdx.y tells. With groups (count > 0;
/// one row at a time then), the matrix is that of the row's group, `step` elements after the one before, and rows after
/// those of all groups are skipped. `wide`: rows of x and of the matrices are aligned to 16 bytes and whole vectors of
/// as many.
template <bool wide, int rows, int split, int own, class X, class Y, class S>
__global__ void __launch_bounds__(gemv_threads)
    gemv_kernel(Groups groups, MatrixView<const X> x, const S* weight, Index step, Index stride, ResultRows<Y> y) {
  using C = compute_t<X>;
  const int lane = lane_index(), warp = warp_index();
  const Index first_row = Index(blockIdx.y) * rows;
  const Index column = (Index(blockIdx.x) * (gemv_warps / split) + warp / split) * own;
  // The last column or row again in place of those that are not there.
  const auto line = [&](int c) { return weight + min(column + c, y.columns - 1) * stride; };
  const auto row = [&](int r) { return min(first_row + r, y.rows - 1); };
  // While the previous kernel still runs, weights are prefetched into the L2 cache.
  if (groups.count == 0 && column < y.columns) {
    constexpr Index line_elements = 128 / Index(sizeof(S));
    for (int c = 0; c < own; ++c) {
      for (Index i = (warp % split * warp_size + lane) * line_elements; i < x.columns;
           i += split * warp_size * line_elements) {
        asm volatile("prefetch.global.L2 [%0];" ::"l"(line(c) + i));
      }
    }
  }
  await_stream();
  release_stream();
  if (column >= y.columns) return;  // a whole block where warps share columns: then it has no other
  if (groups.count > 0) {
    Index group = -1;
    for (Index first = 0; group < 0; first += warp_size) {
      if (first >= groups.count) return;
      const Index g = first + lane;
      const bool mine = g < groups.count && groups.offsets[g] <= first_row && first_row < groups.offsets[g + 1];
      const unsigned found = __ballot_sync(full_mask, mine);
      if (found != 0) group = first + __ffs(int(found)) - 1;
    }
    weight += group * step;
  }

  C sums[rows][own] = {};
  if constexpr (wide) {
    constexpr int count = full_vector<S>, part = full_vector<X>;
#pragma unroll 4
    for (Index i = (warp % split * warp_size + lane) * count; i < x.columns; i += split * warp_size * count) {
      Vector<S, count> w[own];
#pragma unroll
      for (int c = 0; c < own; ++c) w[c] = *reinterpret_cast<const Vector<S, count>*>(line(c) + i);
#pragma unroll
      for (int r = 0; r < rows; ++r) {
#pragma unroll
        for (int j = 0; j < count; j += part) {
          const auto v = load_widened<part>(x, row(r), i + j);
#pragma unroll
          for (int c = 0; c < own; ++c) {
            for (int k = 0; k < part; ++k) sums[r][c] += v.values[k] * static_cast<C>(w[c].values[j + k]);
          }
        }
      }
    }
  } else {
#pragma unroll 4
    for (Index i = warp % split * warp_size + lane; i < x.columns; i += split * warp_size) {
      C w[own];
      for (int c = 0; c < own; ++c) w[c] = static_cast<C>(line(c)[i]);
      for (int r = 0; r < rows; ++r) {
        const C v = static_cast<C>(x(row(r), i));
        for (int c = 0; c < own; ++c) sums[r][c] += v * w[c];
      }
    }
  }
  const auto put = [&](int r, int c, C sum) {
    if (first_row + r < y.rows && column + c < y.columns) y.row(first_row + r)[column + c] = static_cast<Y>(sum);
  };
  if constexpr (split == 1) {
#pragma unroll
    for (int r = 0; r < rows; ++r) {
#pragma unroll
      for (int c = 0; c < own; ++c) {
        const C sum = warp_sum(sums[r][c]);
        if (lane == 0) put(r, c, sum);
      }
    }
  } else {
    static_assert(split == gemv_warps);
    __shared__ C shared[rows * own][split];
#pragma unroll
    for (int r = 0; r < rows; ++r) {
#pragma unroll
      for (int c = 0; c < own; ++c) {
        const C sum = warp_sum(sums[r][c]);
        if (lane == 0) shared[r * own + c][warp] = sum;
      }
    }
    __syncthreads();
    if (int(threadIdx.x) >= rows * own) return;
    C sum = shared[threadIdx.x][0];
    for (int w = 1; w < split; ++w) sum += shared[threadIdx.x][w];
    put(int(threadIdx.x) / own, int(threadIdx.x) % own, sum);
  }
}

template <int rows, class X, class Y, class S>
void gemv(Device& device, Groups groups, MatrixView<const X> x, const S* weight, Index step, Index stride,
          const ResultRows<Y>& y) {
  constexpr Index count = full_vector<S>;
  const bool wide = can_vectorise<full_vector<X>>(x.data, x.stride) && can_vectorise<full_vector<S>>(weight, stride) &&
                    step % count == 0 && x.columns % count == 0;
  // Long sums over few columns take several warps each, or too few loads would be in flight. Whether they do
  // depends on the matrix alone, so that a row's result does not change with the number of rows.
  const Index enough_warps = 24 * Index(device.processors());
  const bool split = y.columns < enough_warps && x.columns >= 2 * gemv_threads * count;
  // Two columns of a warp share what is read of x.
  const bool paired = y.columns * (split ? gemv_warps : 1) >= 2 * enough_warps;
  const auto launch = [&](auto is_wide, auto warps, auto own) {
    constexpr int of_block = gemv_warps / decltype(warps)::value * decltype(own)::value;
    const dim3 blocks(unsigned(ceiling_divide<Index>(y.columns, of_block)),
                      unsigned(ceiling_divide<Index>(y.rows, rows)));
    launch_dependent(device,
                     gemv_kernel<decltype(is_wide)::value, rows, decltype(warps)::value, decltype(own)::value, X, Y, S>,
                     blocks, unsigned(gemv_threads), 0, groups, x, weight, step, stride, y);
  };
  const auto with_own = [&](auto is_wide, auto warps) {
    if (paired) {
      launch(is_wide, warps, std::integral_constant<int, 2>{});
    } else {
      launch(is_wide, warps, std::integral_constant<int, 1>{});
    }
  };
  const auto with_warps = [&](auto is_wide) {
    if (split) {
      with_own(is_wide, std::integral_constant<int, gemv_warps>{});
    } else {
      with_own(is_wide, std::integral_constant<int, 1>{});
    }
  };
  if (wide) {
    with_warps(std::true_type{});
  } else {
    with_warps(std::false_type{});
  }
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
