#pragma once

#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/cuda/warp.hpp"

/// Sums over the threads of a warp or a block, in an order that is always the same.
namespace moe_mamba::cuda::detail {

/// The sum of `value` over a warp, in each of its threads. All of them must arrive.
template <class T>
__device__ inline T warp_sum(T value) {
  for (int distance = warp_size / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(whole_warp, value, distance);
  }
  return value;
}

/// The sum of `value` over a block of `threads` (whole warps, in any shape), in each of its threads. All of them must
/// arrive; calls may follow one another.
template <int threads, class T>
__device__ inline T block_sum(T value) {
  static_assert(threads % warp_size == 0 && threads <= warp_size * warp_size);
  constexpr int warps = threads / warp_size;
  value = warp_sum(value);
  if constexpr (warps > 1) {
    __shared__ T sums[warps];
    const int thread = int(threadIdx.y * blockDim.x + threadIdx.x);
    __syncthreads();  // the sums of a call before have been read
    if (thread % warp_size == 0) sums[thread / warp_size] = value;
    __syncthreads();
    value = sums[0];
    for (int warp = 1; warp < warps; ++warp) value += sums[warp];
  }
  return value;
}

}  // namespace moe_mamba::cuda::detail
