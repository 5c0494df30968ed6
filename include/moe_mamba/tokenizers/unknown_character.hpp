#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "moe_mamba/text/utf8.hpp"

/// A character without a token, as thrown by the model and translated to its position in the text for the message.
namespace moe_mamba::inline v0_2::detail {

/// Thrown while encoding. `at` points to the character, or to a byte of it, in the text being processed; a step that
/// works on a copy catches it and redirects it to the same character of the original.
struct UnknownCharacter {
  const char* at;
  std::string unit;  // the character in the model's input
};

/// Start of the unit with that index, or the end of the text if there are fewer.
inline const char* find_unit(std::string_view text, std::size_t number) {
  std::size_t at = 0;
  for (; number > 0 && at < text.size(); --number) at += utf8_unit(text, at).bytes;
  return text.data() + at;
}

/// The unit that a byte of the text belongs to.
inline std::string_view unit_around(std::string_view text, std::size_t byte) {
  for (std::size_t before = byte < 3 ? byte : 3; before > 0; --before) {
    const std::size_t bytes = utf8_unit(text, byte - before).bytes;
    if (bytes > before) return text.substr(byte - before, bytes);
  }
  return text.substr(byte, utf8_unit(text, byte).bytes);
}

}  // namespace moe_mamba::inline v0_2::detail
