#pragma once

#include <charconv>
#include <clocale>  // with POSIX: newlocale, uselocale
#include <cmath>
#include <new>
#include <string>

/// Numbers in files are written as C++ writes them, whatever the program's locale.
namespace moe_mamba::detail {

/// Puts the calling thread, and no other, into the locale "C" while it lives: for code that reads numbers as the locale
/// says. A thread's own locale stands before the program's, so it holds also where another thread calls setlocale().
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

/// A number in at most 15 digits, as JSON has it; what is not finite as Python writes it there: NaN, Infinity, -Infinity.
inline std::string number_text(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::general, 15).ptr;
  return std::string(buffer, end);
}

}  // namespace moe_mamba::detail
