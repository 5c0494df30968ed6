#pragma once

#include "moe_mamba/core/standard.hpp"

/// A thread's indices in its block, for one-dimensional blocks.
namespace moe_mamba::inline v0_2::cuda::detail {

inline constexpr int warp_size = 32;
inline constexpr unsigned full_mask = 0xffffffffu;  // all lanes of a warp

__device__ __forceinline__ int lane_index() { return static_cast<int>(threadIdx.x) % warp_size; }
__device__ __forceinline__ int warp_index() { return static_cast<int>(threadIdx.x) / warp_size; }

}  // namespace moe_mamba::inline v0_2::cuda::detail
