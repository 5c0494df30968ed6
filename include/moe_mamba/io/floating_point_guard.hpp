#pragma once

#include <cfenv>

#include "moe_mamba/core/standard.hpp"

namespace moe_mamba::inline v0_2::detail {

/// Lets numbers in files overflow, underflow or be NaN for its lifetime, whatever floating-point traps the program has
/// enabled: none is taken, and afterwards the calling thread's flags and traps are as before.
class FloatingPointGuard {
 public:
  FloatingPointGuard() { std::feholdexcept(&before_); }
  ~FloatingPointGuard() { std::fesetenv(&before_); }
  FloatingPointGuard(const FloatingPointGuard&) = delete;
  FloatingPointGuard& operator=(const FloatingPointGuard&) = delete;

 private:
  std::fenv_t before_;
};

}  // namespace moe_mamba::inline v0_2::detail
