#pragma once

#include "moe_mamba/core/standard.hpp"

/// The width of a warp, for host code that lays out blocks too.
namespace moe_mamba::cuda::detail {

inline constexpr int warp_size = 32;
inline constexpr unsigned whole_warp = 0xffffffffu;

}  // namespace moe_mamba::cuda::detail
