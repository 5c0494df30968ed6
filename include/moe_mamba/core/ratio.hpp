#pragma once

#include "moe_mamba/core/standard.hpp"

namespace moe_mamba::inline v0_2 {

/// A number given as a ratio.
struct Ratio {
  int numerator = 0;
  int denominator = 1;
  constexpr double value() const { return static_cast<double>(numerator) / static_cast<double>(denominator); }
};

}  // namespace moe_mamba::inline v0_2
