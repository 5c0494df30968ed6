#pragma once

#include <cfenv>

namespace test {

/// For its lifetime, an invalid operation, an overflow or a division by zero in the calling thread terminates the
/// program, if the system and the processor support that; see raised() for those that do not.
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
  /// Whether they still trap as after construction.
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
