#pragma once

#include <cfenv>

namespace test {

/// While it lives, an invalid operation, an overflow or a division by zero of the calling thread ends the program, where the
/// system and the processor can do that; see raised() for those that cannot.
class FloatingPointTraps {
 public:
  FloatingPointTraps() {
    std::fegetenv(&before_);
    std::feclearexcept(FE_ALL_EXCEPT);
#ifdef __GLIBC__
    feenableexcept(watched);
    trapping_ = fegetexcept();
#endif
  }
  ~FloatingPointTraps() { std::fesetenv(&before_); }
  FloatingPointTraps(const FloatingPointTraps&) = delete;
  FloatingPointTraps& operator=(const FloatingPointTraps&) = delete;

  /// Whether any of these exceptions was raised.
  bool raised() const { return std::fetestexcept(watched) != 0; }
  /// Whether they trap as they did at first.
  bool enabled() const {
#ifdef __GLIBC__
    return fegetexcept() == trapping_;
#else
    return true;
#endif
  }

 private:
  static constexpr int watched = FE_INVALID | FE_OVERFLOW | FE_DIVBYZERO;
  std::fenv_t before_;
  int trapping_ = 0;
};

}  // namespace test
