#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "moe_mamba/tokenizers/unicode.hpp"

/// Normalisation steps that work character by character.
namespace moe_mamba::inline v0_2::detail {

/// Iterates over the characters of a text; change(result, c) appends the replacement of c. Invalid bytes are kept.
template <class Change>
std::string change_characters(std::string_view text, const Change& change) {
  std::string result;
  result.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Unit unit = utf8_unit(text, at);
    if (unit.code == no_character) {
      result += text[at];
    } else {
      change(result, unit.code);
    }
    at += unit.bytes;
  }
  return result;
}

inline std::string lower_case(std::string_view text) {
  return change_characters(text, [](std::string& result, char32_t c) {
    constexpr char32_t dotted_capital_i = 0x130, dot_above = 0x307;
    append_utf8(result, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
    if (c == dotted_capital_i) append_utf8(result, dot_above);
  });
}

inline bool is_mark(char32_t c) {
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME;
}

inline std::string without_marks(std::string_view text) {
  return change_characters(text, [](std::string& result, char32_t c) {
    if (!is_mark(c)) append_utf8(result, c);
  });
}

inline std::string without_nonspacing_marks(std::string_view text) {
  return change_characters(text, [](std::string& result, char32_t c) {
    if (utf8proc_category(static_cast<utf8proc_int32_t>(c)) != UTF8PROC_CATEGORY_MN) append_utf8(result, c);
  });
}

/// As in BERT: removes control characters and replaces white space by spaces.
inline std::string clean_text(std::string_view text) {
  return change_characters(text, [](std::string& result, char32_t c) {
    const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
    const bool is_control = category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CF ||
                            category == UTF8PROC_CATEGORY_CO || c == 0xfffd;
    if (c == '\t' || c == '\n' || c == '\r' || (!is_control && is_space(c))) {
      result += ' ';
    } else if (!is_control) {
      append_utf8(result, c);
    }
  });
}

/// As in BERT: a space on each side of every Chinese character. (One of the ranges starts later than its block.)
inline std::string with_spaced_chinese(std::string_view text) {
  return change_characters(text, [](std::string& result, char32_t c) {
    const bool is_chinese = (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x4e00 && c <= 0x9fff) ||
                            (c >= 0xf900 && c <= 0xfaff) || (c >= 0x20000 && c <= 0x2a6df) ||
                            (c >= 0x2a700 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
                            (c >= 0x2f800 && c <= 0x2fa1f);
    if (is_chinese) result += ' ';
    append_utf8(result, c);
    if (is_chinese) result += ' ';
  });
}

/// As for machine translation: removes control characters and replaces white space and direction marks by spaces.
inline std::string clean_for_translation(std::string_view text) {
  return change_characters(text, [](std::string& result, char32_t c) {
    if ((c >= 1 && c <= 8) || c == 0xb || (c >= 0xe && c <= 0x1f) || c == 0x7f || c == 0x8f || c == 0x9f) return;
    const bool is_blank = c == '\t' || c == '\n' || c == '\f' || c == '\r' || c == 0x1680 ||
                          (c >= 0x200b && c <= 0x200f) || c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xfeff ||
                          c == 0xfffd;
    append_utf8(result, is_blank ? U' ' : c);
  });
}

/// Without leading or trailing white space, or both.
inline std::string_view stripped(std::string_view text, bool left, bool right) {
  if (left) text.remove_prefix(skip_classes(text, 0, Space));
  std::size_t end = 0;  // after the last character that is not white space
  for (std::size_t at = 0; right && at < text.size();) {
    const ClassifiedUnit unit = classified_unit(text, at);
    at += unit.bytes;
    if ((unit.classes & Space) == 0) end = at;
  }
  return right ? text.substr(0, end) : text;
}

}  // namespace moe_mamba::inline v0_2::detail
