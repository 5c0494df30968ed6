#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "moe_mamba/text/utf8.hpp"

/// A character that a tokenizer has no token for, on its way from the model that found it to the message that says where
/// in the text it stands.
namespace moe_mamba::detail {

/// Thrown inside an encoding. `at` points to the character, or to the byte of it, in the text that is worked on; who works
/// on a copy catches it and points to the same character of the original.
struct UnknownCharacter {
  const char* at;
  std::string unit;  // the character as the model saw it
};

/// Where the unit of that number begins, the last place of the text where it has fewer.
inline const char* find_unit(std::string_view text, std::size_t number) {
  std::size_t at = 0;
  for (; number > 0 && at < text.size(); --number) at += utf8_unit(text, at).bytes;
  return text.data() + at;
}

/// The whole unit that a byte of the text belongs to.
inline std::string_view unit_around(std::string_view text, std::size_t byte) {
  for (std::size_t before = byte < 3 ? byte : 3; before > 0; --before) {
    const std::size_t bytes = utf8_unit(text, byte - before).bytes;
    if (bytes > before) return text.substr(byte - before, bytes);
  }
  return text.substr(byte, utf8_unit(text, byte).bytes);
}

}  // namespace moe_mamba::detail
