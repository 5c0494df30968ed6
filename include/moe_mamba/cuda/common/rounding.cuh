#pragma once

#include <cstdint>
#include <type_traits>

#include "moe_mamba/core/scalar.hpp"

/// Rounding of float to bfloat16.
namespace moe_mamba::inline v0_2::cuda::detail {

/// Two floats rounded to nearest, ties to even, the first in the lower half.
__device__ inline unsigned rounded_pair(float first, float second) {
  unsigned pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
}

/// A value as stored in activations of type C: rounded to nearest, ties to even, if C is bfloat16.
template <StorageScalar C>
__device__ __forceinline__ C stored_as(compute_t<C> value) {
  if constexpr (std::is_same_v<C, bfloat16>) {
    bfloat16 stored;
    stored.bits = static_cast<std::uint16_t>(rounded_pair(value, 0.0f));
    return stored;
  } else {
    return value;
  }
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
