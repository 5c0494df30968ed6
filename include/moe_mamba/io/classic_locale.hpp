#pragma once

#include <charconv>
#include <clocale>  // with POSIX: newlocale, uselocale
#include <cmath>
#include <new>
#include <string>

#include "moe_mamba/core/standard.hpp"

/// Numbers in files have the format of the locale "C", independent of the program's locale.
namespace moe_mamba::inline v0_2::detail {

/// Sets the locale of the calling thread to "C" for its lifetime, for code that parses numbers according to the locale.
/// A thread's locale overrides the program's, so it stays in effect even if another thread calls setlocale().
class ClassicLocale {
 public:
  /// Throws std::bad_alloc.
  ClassicLocale() : locale_(::newlocale(LC_ALL_MASK, "C", locale_t{})) {
    if (locale_ == locale_t{}) throw std::bad_alloc();
    before_ = ::uselocale(locale_);
  }
  ~ClassicLocale() {
    ::uselocale(before_);
    ::freelocale(locale_);
  }
  ClassicLocale(const ClassicLocale&) = delete;
  ClassicLocale& operator=(const ClassicLocale&) = delete;

 private:
  locale_t locale_, before_;
};

/// A number as JSON, with at most 15 digits; non-finite numbers as Python writes them: NaN, Infinity, -Infinity.
inline std::string number_text(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::general, 15).ptr;
  return std::string(buffer, end);
}

}  // namespace moe_mamba::inline v0_2::detail
