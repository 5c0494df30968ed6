#pragma once

#include <cfenv>

#include "moe_mamba/core/standard.hpp"

namespace moe_mamba::inline v0_2::detail {

/// Lets numbers of files overflow, underflow or be NaN while it lives, whatever the program does about such exceptions: none
/// traps, and after it the flags and traps of the calling thread are what they were.
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
