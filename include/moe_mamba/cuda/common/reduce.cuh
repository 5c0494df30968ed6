#pragma once

#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/cuda/common/thread.cuh"

/// Sums over the threads of a warp or a block, in a fixed order.
namespace moe_mamba::inline v0_2::cuda::detail {

/// The sum of `value` over a warp, or over every `lanes` neighbours of it, in each of its threads. All of the warp must
/// arrive.
template <int lanes = warp_size, class T>
__device__ inline T warp_sum(T value) {
  for (int distance = lanes / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(full_mask, value, distance);
  }
  return value;
}

/// The sum of `value` over a block of `threads` (whole warps, in any shape), in each of its threads. All threads must
/// call it; no barrier is needed between calls.
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

/// The exclusive prefix sum of `value` over the threads of a one-dimensional block; `total` becomes the sum over all.
/// All threads must call it; no barrier is needed between calls.
template <int threads, class T>
__device__ inline T block_sum_before(T value, T& total) {
  constexpr int warps = threads / warp_size;
  __shared__ T sums[warps];
  const int lane = lane_index(), own_warp = warp_index();
  T sum = value;
  for (int distance = 1; distance < warp_size; distance *= 2) {
    const T left = __shfl_up_sync(full_mask, sum, distance);
    if (lane >= distance) sum += left;
  }
  T before = __shfl_up_sync(full_mask, sum, 1);
  if (lane == 0) before = 0;
  __syncthreads();  // the sums of a call before have been read
  if (lane == warp_size - 1) sums[own_warp] = sum;
  __syncthreads();
  T earlier = 0;
  total = 0;
  for (int warp = 0; warp < warps; ++warp) {
    if (warp == own_warp) earlier = total;
    total += sums[warp];
  }
  return earlier + before;
}

/// The sums over the lanes of a warp of Count values, a power of two up to 32; a lane gets the sum of value lane ·
/// Count / 32. In each exchange a lane trades one half of its values for another lane's share of the other half, so the
/// whole takes about one shuffle per value.
template <int Count, int Mask = 16, class C, int Size>
__device__ __forceinline__ C sum_over_lanes(C (&values)[Size], int lane) {
  if constexpr (Count > 1) {
    const bool upper = (lane & Mask) != 0;
#pragma unroll
    for (int i = 0; i < Count / 2; ++i) {
      const C given = upper ? values[i] : values[i + Count / 2], kept = upper ? values[i + Count / 2] : values[i];
      values[i] = kept + __shfl_xor_sync(full_mask, given, Mask);
    }
    return sum_over_lanes<Count / 2, Mask / 2>(values, lane);
  } else if constexpr (Mask > 0) {
    values[0] += __shfl_xor_sync(full_mask, values[0], Mask);
    return sum_over_lanes<1, Mask / 2>(values, lane);
  } else {
    return values[0];
  }
}

/// The same for groups of Size values, whose two halves are swapped in lanes from 16 on: the first exchange then needs
/// no selection. A lane gets value (lane mod 16) · Groups · Size / 32 of the halves that it holds first. Groups of one
/// value are summed as above.
template <int Groups, int Size, class C>
__device__ __forceinline__ C sum_swapped_over_lanes(C (&values)[Groups * Size], int lane) {
  if constexpr (Size == 1) {
    return sum_over_lanes<Groups>(values, lane);
  } else {
    constexpr int half = Size / 2;
    C kept[Groups * half];
#pragma unroll
    for (int i = 0; i < Groups * half; ++i) {
      const int at = i / half * Size + i % half;
      kept[i] = values[at] + __shfl_xor_sync(full_mask, values[at + half], 16);
    }
    return sum_over_lanes<Groups * half, 8>(kept, lane);
  }
}

/// Whether this block is the last of `blocks` to arrive at `ticket`, which is 0 before and afterwards. If so, it may
/// read, bypassing the L1 cache, what the others wrote before they arrived. All threads must call it.
__device__ inline bool arrives_last(unsigned* ticket, unsigned blocks) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    last = atomicAdd(ticket, 1u) == blocks - 1;
    if (last) *ticket = 0;
  }
  __syncthreads();
  if (last) __threadfence();
  return last;
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
