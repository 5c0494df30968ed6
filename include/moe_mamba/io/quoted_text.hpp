#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "moe_mamba/core/standard.hpp"

/// Names and values from untrusted files in messages.
namespace moe_mamba::inline v0_2::detail {

/// Bytes of the UTF-8 character at the beginning of `text` (RFC 3629), 0 if there is none: no overlong forms, no
/// surrogates.
inline std::size_t utf8_character(std::string_view text) {
  const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const auto follows = [&](std::size_t i, unsigned low = 0x80, unsigned high = 0xbf) {
    return byte(i) >= low && byte(i) <= high;
  };
  const unsigned first = byte(0);
  if (text.empty()) return 0;
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return follows(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    return follows(1, first == 0xe0 ? 0xa0 : 0x80, first == 0xed ? 0x9f : 0xbf) && follows(2) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    return follows(1, first == 0xf0 ? 0x90 : 0x80, first == 0xf4 ? 0x8f : 0xbf) && follows(2) && follows(3) ? 4 : 0;
  }
  return 0;
}

/// A name or value in quotes for a message, as valid UTF-8 whatever the bytes: control characters and invalid bytes are
/// escaped. Truncated, between two characters, after `longest` bytes.
inline std::string in_quotes(std::string_view text, std::size_t longest = 100) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string result = "\"";
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t bytes = utf8_character(text.substr(at));
    if (at + (bytes == 0 ? 1 : bytes) > longest) break;
    const auto first = static_cast<unsigned char>(text[at]);
    if (bytes == 0 || first < 0x20 || first == 0x7f) {
      result += "\\x";
      result += digits[first / 16];
      result += digits[first % 16];
      ++at;
    } else {
      result += text.substr(at, bytes);
      at += bytes;
    }
  }
  return result + (at < text.size() ? "\" (cut)" : "\"");
}

/// A path for a message: unchanged, or all of it in quotes if a part has to be escaped.
inline std::string shown_path(const std::string& path) {
  std::string quoted = in_quotes(path, std::string::npos);
  return quoted.size() == path.size() + 2 ? path : quoted;
}

}  // namespace moe_mamba::inline v0_2::detail
