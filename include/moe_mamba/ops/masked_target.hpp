#pragma once

#include "moe_mamba/core/scalar.hpp"

namespace moe_mamba::inline v0_2 {

/// A target that is not part of the loss.
inline constexpr Token masked_target = -1;

}  // namespace moe_mamba::inline v0_2
