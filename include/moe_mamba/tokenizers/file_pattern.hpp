#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "moe_mamba/tokenizers/json_field.hpp"
#include "moe_mamba/tokenizers/regex_matcher.hpp"

/// Patterns as files have them, {"String": ...} or {"Regex": ...}, and replacing what they match.
namespace moe_mamba::detail {

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

/// The string of a pattern that is one.
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

/// Where the unit ends that begins at a place.
inline std::size_t unit_end(std::string_view text, std::ptrdiff_t begin) {
  const auto at = static_cast<std::size_t>(begin);
  return at + utf8_unit(text, at).bytes;
}

/// Where the last unit of a text begins, -1 if there is none.
inline std::ptrdiff_t last_unit(std::string_view text) {
  return text.empty() ? -1 : static_cast<std::ptrdiff_t>(unit_before(text, text.size()));
}

/// A string that stands in place of all that a pattern matches.
class Replacement {
 public:
  /// Of a normalizer or decoder of the type Replace.
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

  /// The same. Places up to `begin` stand for the begin of a whole text, before and after, where a string stands where the
  /// last character stood that it is there for; none where it is negative.
  std::string operator()(std::string_view text, std::ptrdiff_t& begin) const {
    std::string result;
    if (text.empty()) return result;  // there is nothing to match, not even for an expression that takes nothing
    result.reserve(text.size());
    std::size_t copied = 0;
    std::size_t head = begin < 0 ? 0 : unit_end(text, begin);  // what begins the text
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

  /// Whether it replaces characters, and does not put its string between them.
  bool takes_characters() const { return !expression_ || expression_->takes_characters(); }

  /// Whether it is a character of ASCII that is replaced, so that it does not matter where a text is cut.
  bool is_of_ascii_character() const { return from_.size() == 1 && static_cast<unsigned char>(from_[0]) < 128; }

  /// How many times its size a text can have afterwards, at most.
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
  std::shared_ptr<const Regex> expression_;  // in place of `from_`
};

/// One after the other, steps could make a text longer than any memory.
class TextGrowth {
 public:
  /// Of one step more, which makes a text at most so many times as long; the field is named where that is too much.
  void check(const JsonField& field, std::size_t growth) {
    growth_ *= growth;
    if (growth_ > 64) field.refuse("steps that make no text longer than 64 times itself");
  }

 private:
  std::size_t growth_ = 1;
};

}  // namespace moe_mamba::detail
