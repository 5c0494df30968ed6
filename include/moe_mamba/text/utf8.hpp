#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "moe_mamba/core/standard.hpp"

/// Lenient UTF-8 (RFC 3629: no overlong forms, no surrogates): a byte that does not begin a valid character is a unit
/// of its own, so that any bytes can be iterated over without loss.
namespace moe_mamba::inline v0_2::detail {

/// The code of an invalid byte.
inline constexpr char32_t no_character = 0xffffffff;

struct Utf8Unit {
  char32_t code;      // or no_character
  std::size_t bytes;  // 1 to 4
};

/// The unit at the beginning of the non-empty range of bytes from `at` to `end`.
inline Utf8Unit utf8_unit(const char* at, const char* end) {
  const auto byte = [&](std::ptrdiff_t i) {
    return i < end - at ? static_cast<char32_t>(static_cast<unsigned char>(at[i])) : 0u;
  };
  const auto follows = [&](std::ptrdiff_t i, char32_t low = 0x80, char32_t high = 0xbf) {
    return byte(i) >= low && byte(i) <= high;
  };
  const char32_t first = byte(0);
  if (first < 0x80) return {first, 1};
  if (first >= 0xc2 && first <= 0xdf) {
    if (follows(1)) return {(first & 0x1f) << 6 | (byte(1) & 0x3f), 2};
  } else if (first >= 0xe0 && first <= 0xef) {
    if (follows(1, first == 0xe0 ? 0xa0 : 0x80, first == 0xed ? 0x9f : 0xbf) && follows(2)) {
      return {(first & 0xf) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f), 3};
    }
  } else if (first >= 0xf0 && first <= 0xf4) {
    if (follows(1, first == 0xf0 ? 0x90 : 0x80, first == 0xf4 ? 0x8f : 0xbf) && follows(2) && follows(3)) {
      return {(first & 7) << 18 | (byte(1) & 0x3f) << 12 | (byte(2) & 0x3f) << 6 | (byte(3) & 0x3f), 4};
    }
  }
  return {no_character, 1};
}

inline Utf8Unit utf8_unit(std::string_view text, std::size_t at = 0) {
  return utf8_unit(text.data() + at, text.data() + text.size());
}

/// The beginning of the unit that ends at `at`, which must be positive.
inline std::size_t unit_before(std::string_view text, std::size_t at) {
  for (std::size_t bytes = 2; bytes <= 4 && bytes <= at; ++bytes) {
    if (utf8_unit(text, at - bytes).bytes == bytes) return at - bytes;
  }
  return at - 1;
}

/// Number of units between two positions.
inline std::size_t count_units(const char* begin, const char* end) {
  std::size_t count = 0;
  for (; begin < end; begin += utf8_unit(begin, end).bytes) ++count;
  return count;
}

/// Appends a code point (below 0x110000).
inline void append_utf8(std::string& text, char32_t code) {
  const auto add = [&](char32_t byte) { text += static_cast<char>(static_cast<unsigned char>(byte)); };
  if (code < 0x80) {
    add(code);
  } else if (code < 0x800) {
    add(0xc0 | code >> 6);
    add(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    add(0xe0 | code >> 12);
    add(0x80 | (code >> 6 & 0x3f));
    add(0x80 | (code & 0x3f));
  } else {
    add(0xf0 | code >> 18);
    add(0x80 | (code >> 12 & 0x3f));
    add(0x80 | (code >> 6 & 0x3f));
    add(0x80 | (code & 0x3f));
  }
}

/// Number of bytes, 0 to 3, of an incomplete character at the end of `text` that further bytes could complete.
inline std::size_t incomplete_utf8(std::string_view text) {
  const std::size_t longest = text.size() < 3 ? text.size() : 3;
  for (std::size_t count = 1; count <= longest; ++count) {
    const std::size_t at = text.size() - count;
    const auto first = static_cast<unsigned char>(text[at]);
    if (first >= 0x80 && first < 0xc0) continue;  // not the first byte of a character
    const std::size_t whole = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc2 ? 2 : 1;
    if (whole <= count) return 0;
    // It can be completed if and only if the smallest or the largest continuation bytes make it valid.
    for (const char filler : {'\x80', '\xbf'}) {
      std::string trial(text.substr(at));
      trial.resize(whole, filler);
      if (utf8_unit(trial).bytes == whole) return count;
    }
    return 0;
  }
  return 0;
}

}  // namespace moe_mamba::inline v0_2::detail
