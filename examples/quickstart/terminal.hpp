#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <span>
#include <string>
#include <string_view>
#include <sys/ioctl.h>
#include <unistd.h>

/// What the quickstart shows on the terminal.
namespace quickstart {

/// printf into a string.
template <class... Values>
std::string format(const char* pattern, Values... values) {
  const int size = std::snprintf(nullptr, 0, pattern, values...);
  std::string text(static_cast<std::size_t>(std::max(size, 0)), '\0');
  std::snprintf(text.data(), text.size() + 1, pattern, values...);
  return text;
}

/// 950, 18.3k, 3.45M
inline std::string short_number(double value) {
  if (value >= 1e6) return format(value >= 1e8 ? "%.0fM" : value >= 1e7 ? "%.1fM" : "%.2fM", value / 1e6);
  if (value >= 1e3) return format(value >= 1e5 ? "%.0fk" : "%.1fk", value / 1e3);
  return format("%.0f", value);
}

/// 1234567 as 1,234,567
inline std::string grouped(long long value) {
  std::string text = std::to_string(value);
  for (auto place = static_cast<std::ptrdiff_t>(text.size()) - 3; place > 0; place -= 3) {
    text.insert(static_cast<std::size_t>(place), 1, ',');
  }
  return text;
}

/// 2:05, 1:02:05
inline std::string clock_time(double seconds) {
  const long long whole = std::llround(std::max(seconds, 0.0));
  if (whole >= 3600) return format("%lld:%02lld:%02lld", whole / 3600, whole / 60 % 60, whole % 60);
  return format("%lld:%02lld", whole / 60, whole % 60);
}

/// A line that is written over and over on a terminal; elsewhere, each twentieth of the way is a line of its own.
class Progress {
 public:
  /// Shows `text` beside a bar for `done`, from 0 to 1.
  void show(double done, const std::string& text) {
    done = std::clamp(done, 0.0, 1.0);
    if (!terminal_) {
      const int twentieth = static_cast<int>(done * 20);
      if (twentieth == last_twentieth_) return;
      last_twentieth_ = twentieth;
      std::cout << format("%3.0f%%  ", std::floor(done * 100)) << text << '\n' << std::flush;
      return;
    }
    constexpr int fixed = 8;  // "\r", percent and the bar's ends
    const int room = columns() - fixed - static_cast<int>(text.size()) - 1;
    std::string line = format("\r%3.0f%% ", std::floor(done * 100)) + bar(done, std::min(room, 30)) + ' ' + text;
    std::cout << line << "\033[K" << std::flush;
    open_ = true;
  }

  /// Ends the line.
  void close() {
    if (open_) std::cout << '\n' << std::flush;
    open_ = false;
  }
  ~Progress() { close(); }

 private:
  static int columns() {
    winsize size = {};
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 100;
  }

  static bool speaks_utf8() {
    for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
      const char* value = std::getenv(name);
      if (value == nullptr || *value == '\0') continue;
      const std::string_view text = value;
      return text.find("UTF-8") != text.npos || text.find("utf8") != text.npos;
    }
    return false;
  }

  std::string bar(double done, int cells) const {
    if (cells < 4) return "";
    const int eighths = static_cast<int>(std::lround(done * cells * (utf8_ ? 8 : 1)));
    std::string text;
    for (int cell = 0; cell < cells; ++cell) {
      if (!utf8_) {
        text += cell < eighths ? '#' : '.';
        continue;
      }
      static constexpr const char* partial[] = {"░", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"};
      text += partial[std::clamp(eighths - cell * 8, 0, 8)];
    }
    return text;
  }

  bool terminal_ = isatty(STDOUT_FILENO) == 1;
  bool utf8_ = speaks_utf8();
  bool open_ = false;
  int last_twentieth_ = -1;
};

/// A byte that a model wrote, as a terminal may get it: no control characters but tab and newline.
inline char printable(int token) {
  const bool control = token < 32 && token != '\n' && token != '\t';
  return control || token == 127 ? '?' : static_cast<char>(token);
}

}  // namespace quickstart
