#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include "moe_mamba/tokenizers/unicode.hpp"

/// Hand-written matchers for the regular expressions by which pre-tokenizers split text into words. Each expression is
/// a list of alternatives of which the first that matches is taken; one always does. Patterns differ only in the fields
/// below.
namespace moe_mamba::inline v0_2::detail {

enum class Contractions {
  None,
  Lower,    // 's|'t|'re|'ve|'m|'ll|'d as the first alternative
  AnyCase,  // the same with (?i:…)
  Suffix    // (?i:…)? after a word of letters
};

enum class Letters {
  Spaced,    //  ?\p{L}+
  Prefixed,  // [^\r\n\p{L}\p{N}]?\p{L}+
  Cased      // words of upper-case letters followed by lower-case ones, with the same prefix
};

struct SplitPattern {
  std::string_view name;
  std::string_view regex;  // as in a file
  Contractions contractions;
  Letters letters;
  std::size_t digits;     // at most this many per word; 0: any number, after an optional space
  std::string_view tail;  // characters that may follow punctuation
  bool newlines;          // \s*[\r\n]+ before \s+(?!\S)|\s+
};

inline constexpr std::array<SplitPattern, 7> split_patterns{{
    {"GPT-2", R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", Contractions::Lower,
     Letters::Spaced, 0, "", false},
    {"Llama 3",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     Contractions::AnyCase, Letters::Prefixed, 3, "\r\n", true},
    {"GPT-4",
     R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)",
     Contractions::AnyCase, Letters::Prefixed, 3, "\r\n", true},
    {"GPT-4, groups spelt out",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)",
     Contractions::AnyCase, Letters::Prefixed, 3, "\r\n", true},
    {"Qwen 2",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     Contractions::AnyCase, Letters::Prefixed, 1, "\r\n", true},
    {"GPT-4o",
     R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     Contractions::Suffix, Letters::Cased, 3, "\r\n/", true},
    {"Mistral's tekken",
     R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     Contractions::None, Letters::Cased, 1, "\r\n/", true},
}};

/// The pattern with this spelling, or null.
inline const SplitPattern* find_split_pattern(std::string_view regex) {
  for (const SplitPattern& pattern : split_patterns) {
    if (pattern.regex == regex) return &pattern;
  }
  return nullptr;
}

/// The end of a contraction at `at`, or `at` if there is none. Case-insensitive, which for s includes the long s.
inline std::size_t match_contraction(std::string_view text, std::size_t at, bool any_case) {
  if (at + 1 >= text.size() || text[at] != '\'') return at;
  const auto letter = [&](std::size_t i) {
    const char c = i < text.size() ? text[i] : '\0';
    return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  };
  if (any_case && text.substr(at + 1, 2) == "\u017f") return at + 3;
  const char first = letter(at + 1), second = letter(at + 2);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return at + 2;
  if ((first == 'r' && second == 'e') || (first == 'v' && second == 'e') || (first == 'l' && second == 'l')) {
    return at + 3;
  }
  return at;
}

/// The end of a word of upper-case letters followed by lower-case ones from `at`, which is after the prefix; `at` if
/// there is none. With `lower_needed` it is [upper]*[lower]+, where both sets include marks and letters without case,
/// otherwise [upper]+[lower]*.
inline std::size_t match_cased(std::string_view text, std::size_t at, bool lower_needed) {
  std::size_t upper_end = at, last_both = text.npos, last_both_end = 0;
  while (upper_end < text.size()) {
    const ClassifiedUnit unit = classified_unit(text, upper_end);
    if ((unit.classes & Upper) == 0) break;
    if ((unit.classes & Lower) != 0) last_both = upper_end, last_both_end = upper_end + unit.bytes;
    upper_end += unit.bytes;
  }
  const std::size_t end = skip_classes(text, upper_end, Lower);
  if (!lower_needed) return upper_end > at ? end : at;
  if (end > upper_end) return end;
  // The expression backtracks to the last character in both sets; only upper case follows it.
  return last_both == text.npos ? at : last_both_end;
}

/// The end of a match of the alternative for words of letters, `at` if it does not match.
inline std::size_t match_letters(const SplitPattern& pattern, std::string_view text, std::size_t at) {
  const ClassifiedUnit first = classified_unit(text, at);
  const std::size_t second = at + first.bytes;
  if (pattern.letters == Letters::Spaced) {
    const std::size_t begin = text[at] == ' ' ? second : at;
    const std::size_t end = skip_classes(text, begin, Letter);
    return end > begin ? end : at;
  }
  const bool may_prefix = (first.classes & (Letter | Number | Newline)) == 0;
  if (pattern.letters == Letters::Prefixed) {
    const std::size_t begin = may_prefix ? second : at;
    const std::size_t end = skip_classes(text, begin, Letter);
    return end > begin ? end : at;
  }
  for (const bool lower_needed : {true, false}) {
    for (const bool prefix : {true, false}) {
      if (prefix && !may_prefix) continue;
      const std::size_t begin = prefix ? second : at;
      const std::size_t end = match_cased(text, begin, lower_needed);
      if (end == begin) continue;
      return pattern.contractions == Contractions::Suffix ? match_contraction(text, end, true) : end;
    }
  }
  return at;
}

/// The end of a word of white space that begins at `at`: after the last newline if the pattern treats newlines
/// specially; otherwise all of it at the end of the text; otherwise all but the last character, which belongs to the
/// next word, unless it is the only one.
inline std::size_t match_space(const SplitPattern& pattern, std::string_view text, std::size_t at) {
  std::size_t end = at, last = at, newline_end = at;
  while (end < text.size()) {
    const ClassifiedUnit unit = classified_unit(text, end);
    if ((unit.classes & Space) == 0) break;
    last = end;
    end += unit.bytes;
    if ((unit.classes & Newline) != 0) newline_end = end;
  }
  if (pattern.newlines && newline_end > at) return newline_end;
  return end == text.size() || last == at ? end : last;
}

/// The end of the word that begins at `at`, an offset inside the text.
inline std::size_t match_word(const SplitPattern& pattern, std::string_view text, std::size_t at) {
  if (pattern.contractions == Contractions::Lower || pattern.contractions == Contractions::AnyCase) {
    const std::size_t end = match_contraction(text, at, pattern.contractions == Contractions::AnyCase);
    if (end > at) return end;
  }
  if (const std::size_t end = match_letters(pattern, text, at); end > at) return end;
  const std::size_t after_space = text[at] == ' ' ? at + 1 : at;
  if (pattern.digits == 0) {
    if (const std::size_t end = skip_classes(text, after_space, Number); end > after_space) return end;
  } else {
    std::size_t end = at;
    for (std::size_t count = 0; count < pattern.digits && (classes_at(text, end) & Number) != 0; ++count) {
      end += classified_unit(text, end).bytes;
    }
    if (end > at) return end;
  }
  if (std::size_t end = skip_classes(text, after_space, Other); end > after_space) {
    while (end < text.size() && pattern.tail.find(text[end]) != pattern.tail.npos) ++end;
    return end;
  }
  return match_space(pattern, text, at);
}

}  // namespace moe_mamba::inline v0_2::detail
