#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <utf8proc.h>
#include <vector>

#include "moe_mamba/text/utf8.hpp"

/// Character classes and normalisation forms. The tables, and with them the version of Unicode, are utf8proc's; all
/// uses of utf8proc include this file.
namespace moe_mamba::inline v0_2::detail {

/// Sets of classes that the patterns of pre-tokenizers name. An invalid byte is of class Other.
enum CharacterClass : std::uint8_t {
  Space = 1,     // \s, which is White_Space
  Letter = 2,    // \p{L}
  Number = 4,    // \p{N}
  Other = 8,     // none of these three: [^\s\p{L}\p{N}]
  Upper = 16,    // [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]
  Lower = 32,    // [\p{Ll}\p{Lm}\p{Lo}\p{M}]
  Word = 64,     // \w: Alphabetic, marks, decimal numbers, connectors, joiners
  Newline = 128  // [\r\n]
};

constexpr bool is_ascii_alphanumeric(char32_t c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

constexpr bool is_space(char32_t c) {
  return (c >= 0x9 && c <= 0xd) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
         c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

/// Of the categories N. An invalid byte is not.
inline bool is_number(char32_t c) {
  if (c == no_character) return false;
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

/// Of the categories P, or an ASCII symbol. An invalid byte counts as punctuation.
inline bool is_punctuation(char32_t c) {
  if (c < 128) return c > 0x20 && c < 0x7f && !is_ascii_alphanumeric(c);
  if (c == no_character) return true;
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

/// Symbols that count as alphabetic: circled, squared and parenthesised letters (Other_Alphabetic outside the marks).
constexpr bool is_alphabetic_symbol(char32_t c) {
  return (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) ||
         (c >= 0x1f170 && c <= 0x1f189);
}

inline std::uint8_t classes_of_character(char32_t c) {
  if (c == no_character) return Other;
  if (is_space(c)) return static_cast<std::uint8_t>(c == '\r' || c == '\n' ? Space | Newline : Space);
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LT:
      return Letter | Upper | Word;
    case UTF8PROC_CATEGORY_LL:
      return Letter | Lower | Word;
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return Letter | Upper | Lower | Word;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
      return Other | Upper | Lower | Word;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
      return Number | Word;
    case UTF8PROC_CATEGORY_NO:
      return Number;
    case UTF8PROC_CATEGORY_PC:
      return Other | Word;
    default:
      return c == 0x200c || c == 0x200d || is_alphabetic_symbol(c) ? Other | Word : Other;
  }
}

/// The classes of ASCII characters, as a table.
inline constexpr std::array<std::uint8_t, 128> ascii_classes = [] {
  std::array<std::uint8_t, 128> classes{};
  for (char32_t c = 0; c < 128; ++c) {
    std::uint8_t& set = classes[c];
    if (is_space(c)) {
      set = c == '\r' || c == '\n' ? Space | Newline : Space;
    } else if (c >= 'A' && c <= 'Z') {
      set = Letter | Upper | Word;
    } else if (c >= 'a' && c <= 'z') {
      set = Letter | Lower | Word;
    } else if (c >= '0' && c <= '9') {
      set = Number | Word;
    } else {
      set = c == '_' ? Other | Word : Other;
    }
  }
  return classes;
}();

struct ClassifiedUnit {
  std::uint8_t classes;
  std::size_t bytes;
};

/// The unit of UTF-8 at `at`, which must lie inside the text.
inline ClassifiedUnit classified_unit(std::string_view text, std::size_t at) {
  const auto first = static_cast<unsigned char>(text[at]);
  if (first < 128) return {ascii_classes[first], 1};
  const Utf8Unit unit = utf8_unit(text, at);
  return {classes_of_character(unit.code), unit.bytes};
}

/// The classes at `at`, none at the end of the text.
inline std::uint8_t classes_at(std::string_view text, std::size_t at) {
  return at < text.size() ? classified_unit(text, at).classes : std::uint8_t{0};
}

/// The end of the consecutive units of any of these classes from `at` on.
inline std::size_t skip_classes(std::string_view text, std::size_t at, unsigned classes) {
  while (at < text.size()) {
    const ClassifiedUnit unit = classified_unit(text, at);
    if ((unit.classes & classes) == 0) break;
    at += unit.bytes;
  }
  return at;
}

enum class NormalForm { Nfc, Nfd, Nfkc, Nfkd };

/// Converts text to a normalisation form. Invalid bytes are kept, and the text on either side of them is normalised
/// separately.
class UnicodeNormalizer {
 public:
  explicit UnicodeNormalizer(NormalForm form)
      : options_(static_cast<utf8proc_option_t>(
            UTF8PROC_STABLE |
            (form == NormalForm::Nfc || form == NormalForm::Nfkc ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
            (form == NormalForm::Nfkc || form == NormalForm::Nfkd ? UTF8PROC_COMPAT : 0))),
        // Characters below this are normalised already, are not reordered and do not compose with previous ones.
        plain_below_(form == NormalForm::Nfc ? 0x300 : 0x80) {}

  std::string operator()(std::string_view text) const {
    std::string result;
    std::vector<utf8proc_int32_t> buffer;
    std::size_t copied = 0, before = 0;  // `before` is where the last plain character begins
    for (std::size_t at = 0; at < text.size();) {
      const Utf8Unit unit = utf8_unit(text, at);
      if (unit.code < plain_below_ || unit.code == no_character) {
        // An invalid byte does not compose.
        before = unit.code == no_character ? at + unit.bytes : at;
        at += unit.bytes;
        continue;
      }
      // A segment that is normalised independently: the plain character before, which may compose, and all that are not
      // plain.
      std::size_t end = at;
      while (end < text.size()) {
        const Utf8Unit next = utf8_unit(text, end);
        if (next.code < plain_below_ || next.code == no_character) break;
        end += next.bytes;
      }
      if (result.empty()) result.reserve(text.size() + text.size() / 8);
      result.append(text, copied, before - copied);
      append_normalized(text.substr(before, end - before), result, buffer);
      copied = before = at = end;
    }
    result.append(text, copied);
    return result;
  }

 private:
  void append_normalized(std::string_view segment, std::string& result, std::vector<utf8proc_int32_t>& buffer) const {
    buffer.clear();
    for (std::size_t at = 0; at < segment.size();) {
      const Utf8Unit unit = utf8_unit(segment, at);
      append_decomposed(unit.code, buffer);
      at += unit.bytes;
    }
    order_marks(buffer);
    const auto length = utf8proc_normalize_utf32(buffer.data(), std::ssize(buffer), options_);
    for (utf8proc_ssize_t i = 0; i < length; ++i) {
      append_utf8(result, static_cast<char32_t>(buffer[static_cast<std::size_t>(i)]));
    }
  }

  void append_decomposed(char32_t code, std::vector<utf8proc_int32_t>& buffer) const {
    std::array<utf8proc_int32_t, 32> parts;  // no character has more than 18
    int boundary = 0;
    const utf8proc_ssize_t count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code), parts.data(),
                                                           std::ssize(parts), options_, &boundary);
    buffer.insert(buffer.end(), parts.begin(), parts.begin() + std::clamp<std::ptrdiff_t>(count, 0, std::ssize(parts)));
  }

  /// Canonical ordering in O(n log n): utf8proc's own takes O(n^2) for long sequences of marks.
  static void order_marks(std::vector<utf8proc_int32_t>& buffer) {
    const auto class_of = [](utf8proc_int32_t code) {
      return static_cast<std::uint64_t>(utf8proc_get_property(code)->combining_class);
    };
    const auto is_lower = [&](utf8proc_int32_t a, utf8proc_int32_t b) { return class_of(a) < class_of(b); };
    const auto is_mark = [&](utf8proc_int32_t code) { return class_of(code) != 0; };
    std::vector<std::uint64_t> order;  // combining class, index and character of each
    for (auto begin = buffer.begin();;) {
      begin = std::find_if(begin, buffer.end(), is_mark);
      if (begin == buffer.end()) return;
      const auto end = std::find_if_not(begin, buffer.end(), is_mark);
      if (!std::is_sorted(begin, end, is_lower)) {
        order.clear();
        for (auto mark = begin; mark != end; ++mark) {
          order.push_back(class_of(*mark) << 56 | std::uint64_t{order.size()} << 21 |
                          static_cast<std::uint64_t>(*mark));
        }
        std::sort(order.begin(), order.end());
        std::transform(order.begin(), order.end(), begin,
                       [](std::uint64_t key) { return static_cast<utf8proc_int32_t>(key & 0x1fffff); });
      }
      begin = end;
    }
  }

  utf8proc_option_t options_;
  char32_t plain_below_;
};

}  // namespace moe_mamba::inline v0_2::detail
