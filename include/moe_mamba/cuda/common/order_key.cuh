#pragma once

#include "moe_mamba/cuda/common/thread.cuh"

/// Integer keys that order as floating-point numbers do, and reductions to the largest.
namespace moe_mamba::inline v0_2::cuda::detail {

/// A key in the order of `value`, with NaN below everything and equal keys for zeros of both signs.
__device__ inline unsigned order_key(float value) {
  if (value != value) return 0;
  const unsigned bits = __float_as_uint(value + 0.0f);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ inline unsigned long long order_key(double value) {
  if (value != value) return 0;
  const auto bits = static_cast<unsigned long long>(__double_as_longlong(value + 0.0));
  return (bits & 0x8000000000000000ull) != 0 ? ~bits : bits | 0x8000000000000000ull;
}

/// The number with this key.
__device__ inline float ordered_value(unsigned key) {
  return __uint_as_float((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key);
}
__device__ inline double ordered_value(unsigned long long key) {
  const auto bits = (key & 0x8000000000000000ull) != 0 ? key & 0x7fffffffffffffffull : ~key;
  return __longlong_as_double(static_cast<long long>(bits));
}

/// The type of a number's key.
template <class C>
using OrderKey = decltype(order_key(C()));

/// A candidate for the largest of several numbers, ties to the lowest index.
template <class C>
struct Choice {
  OrderKey<C> key;
  int index;

  __device__ bool before(const Choice& other) const {
    return key > other.key || (key == other.key && index < other.index);
  }
};

/// The first choice of a warp, or of every `lanes` neighbours of it, in each of its threads. All of the warp must arrive.
template <int lanes = warp_size, class C>
__device__ inline Choice<C> warp_first(Choice<C> choice) {
  for (int distance = lanes / 2; distance > 0; distance /= 2) {
    const Choice<C> other{__shfl_xor_sync(full_mask, choice.key, distance),
                          __shfl_xor_sync(full_mask, choice.index, distance)};
    if (other.before(choice)) choice = other;
  }
  return choice;
}

/// The first choice of a block of `threads`, in each of its threads. All threads must call it; no barrier is needed
/// between calls.
template <int threads, class C>
__device__ inline Choice<C> block_first(Choice<C> choice) {
  constexpr int warps = threads / warp_size;
  __shared__ OrderKey<C> keys[warps];
  __shared__ int indices[warps];
  choice = warp_first(choice);
  __syncthreads();  // the choices of an earlier call have been read
  if (lane_index() == 0) {
    keys[warp_index()] = choice.key;
    indices[warp_index()] = choice.index;
  }
  __syncthreads();
  for (int warp = 0; warp < warps; ++warp) {
    const Choice<C> other{keys[warp], indices[warp]};
    if (other.before(choice)) choice = other;
  }
  return choice;
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
