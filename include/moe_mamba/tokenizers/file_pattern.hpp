#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "moe_mamba/tokenizers/json_field.hpp"
#include "moe_mamba/tokenizers/regex_matcher.hpp"

/// Patterns of tokenizer files, {"String": ...} or {"Regex": ...}, and replacement of their matches.
namespace moe_mamba::inline v0_2::detail {

/// A string of one character.
inline const std::string& one_character(const JsonField& field) {
  const std::string& text = field.string();
  if (text.empty() || utf8_unit(text).bytes != text.size()) field.refuse("one character");
  return text;
}

inline std::shared_ptr<const Regex> read_regex(const JsonField& field) {
  try {
    return std::make_shared<const Regex>(field.string(), CharacterProperties());
  } catch (const RegexError& error) {
    field.refuse(in_quotes(field.string()) + " (" + error.problem + " at byte " + std::to_string(error.at) + ")",
                 error.allowed);
  }
}

/// The string of a literal pattern.
inline const std::string& read_literal(const JsonField& pattern) {
  const std::string& text = pattern["String"].string();
  if (text.empty()) pattern["String"].refuse("one character or more");
  return text;
}

inline std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string result;
  result.reserve(text.size());
  std::size_t copied = 0;
  for (std::size_t at; (at = text.find(from, copied)) != text.npos; copied = at + from.size()) {
    result.append(text, copied, at - copied);
    result += to;
  }
  result.append(text, copied);
  return result;
}

/// The end of the unit that begins at `begin`.
inline std::size_t unit_end(std::string_view text, std::ptrdiff_t begin) {
  const auto at = static_cast<std::size_t>(begin);
  return at + utf8_unit(text, at).bytes;
}

/// The beginning of the last unit of a text, -1 if there is none.
inline std::ptrdiff_t last_unit(std::string_view text) {
  return text.empty() ? -1 : static_cast<std::ptrdiff_t>(unit_before(text, text.size()));
}

/// Replaces all matches of a pattern by a string.
class Replacement {
 public:
  /// From a normalizer or decoder of type Replace.
  explicit Replacement(const JsonField& field) : to_(field["content"].string()) {
    const JsonField regex = field["pattern"]["Regex"];
    if (regex.is_null()) {
      from_ = read_literal(field["pattern"]);
    } else {
      expression_ = read_regex(regex);
    }
  }

  std::string operator()(std::string_view text) const {
    std::ptrdiff_t none = -1;
    return (*this)(text, none);
  }

  /// The same. Offsets up to `begin` belong to the beginning of the whole text, on entry and on return, where a
  /// replacement has the position of the last character that it replaces; none if `begin` is negative.
  std::string operator()(std::string_view text, std::ptrdiff_t& begin) const {
    std::string result;
    if (text.empty()) return result;  // has no matches, even of an expression that can be empty
    result.reserve(text.size());
    std::size_t copied = 0;
    std::size_t head = begin < 0 ? 0 : unit_end(text, begin);  // length of the text's beginning
    std::size_t made_of_head = 0;
    for_each_match(text, [&](std::size_t from, std::size_t to) {
      if (to > head && copied <= head) made_of_head = result.size() + std::min(from, head) - copied;
      result.append(text, copied, from - copied);
      result += to_;
      copied = to;
    });
    if (copied <= head) made_of_head = result.size() + head - copied;
    result.append(text, copied);
    if (begin >= 0) begin = last_unit(std::string_view(result).substr(0, made_of_head));
    return result;
  }

  /// Whether every match has characters, so that the string is not inserted between characters.
  bool takes_characters() const { return !expression_ || expression_->takes_characters(); }

  /// Whether it replaces a single ASCII character, so that the result does not depend on how the text is split.
  bool is_of_ascii_character() const { return from_.size() == 1 && static_cast<unsigned char>(from_[0]) < 128; }

  /// Upper bound of the factor by which a text can grow.
  std::size_t growth() const {
    const std::size_t to = std::min<std::size_t>(to_.size(), 4096);
    if (!takes_characters()) return to + 1;
    const std::size_t from = expression_ ? 1 : from_.size();
    return std::max<std::size_t>(1, (to + from - 1) / from);
  }

 private:
  template <class Match>
  void for_each_match(std::string_view text, const Match& match) const {
    if (expression_) {
      RegexMatcher(*expression_, text).for_each(match);
    } else {
      for (std::size_t at = 0; (at = text.find(from_, at)) != text.npos; at += from_.size())
        match(at, at + from_.size());
    }
  }

  std::string from_, to_;
  std::shared_ptr<const Regex> expression_;  // instead of `from_`
};

/// Bounds the growth of a text over a sequence of steps, which could exceed any memory.
class TextGrowth {
 public:
  /// Adds a step that makes a text at most `growth` times as long; throws, naming the field, if that is too much.
  void check(const JsonField& field, std::size_t growth) {
    growth_ *= growth;
    if (growth_ > 64) field.refuse("steps that make a text at most 64 times as long");
  }

 private:
  std::size_t growth_ = 1;
};

}  // namespace moe_mamba::inline v0_2::detail
