#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "moe_mamba/text/utf8.hpp"

/// The alphabet that byte-level tokenizers use for bytes in their files: printable Latin-1 characters represent
/// themselves, the 68 others are mapped to the characters from U+0100 on.
namespace moe_mamba::inline v0_2::detail {

constexpr bool stands_for_itself(char32_t byte) {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
}

/// The character of each byte.
inline constexpr std::array<char32_t, 256> byte_characters = [] {
  std::array<char32_t, 256> characters{};
  char32_t next = 0x100;
  for (char32_t byte = 0; byte < 256; ++byte) characters[byte] = stands_for_itself(byte) ? byte : next++;
  return characters;
}();

/// The byte of each character below U+0144, -1 if it represents none.
inline constexpr std::array<int, 0x144> character_bytes = [] {
  std::array<int, 0x144> bytes{};
  bytes.fill(-1);
  for (std::size_t byte = 0; byte < 256; ++byte) bytes[byte_characters[byte]] = static_cast<int>(byte);
  return bytes;
}();

/// Bytes as the characters that represent them.
inline std::string written_bytes(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size() + bytes.size() / 4);
  for (const char byte : bytes) append_utf8(text, byte_characters[static_cast<unsigned char>(byte)]);
  return text;
}

/// The bytes that a token's text represents, none if one of its characters represents no byte.
inline std::optional<std::string> bytes_of_token(std::string_view text) {
  std::string bytes;
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Unit unit = utf8_unit(text, at);
    if (unit.code >= character_bytes.size() || character_bytes[unit.code] < 0) return std::nullopt;
    bytes += static_cast<char>(static_cast<unsigned char>(character_bytes[unit.code]));
    at += unit.bytes;
  }
  return bytes;
}

}  // namespace moe_mamba::inline v0_2::detail
