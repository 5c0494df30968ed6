#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "moe_mamba/tokenizers/json_field.hpp"
#include "moe_mamba/tokenizers/regex.hpp"
#include "moe_mamba/tokenizers/unicode.hpp"

/// The first part of a tokenizer: what is done to the text before it is cut.
namespace moe_mamba::detail {

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

/// The string of a `pattern`, which in a file is {"String": …} or {"Regex": …}.
inline std::string literal_pattern(const JsonField& pattern) {
  if (!pattern["Regex"].is_null()) pattern["Regex"].refuse("a String in its place");
  std::string text = pattern["String"].string();
  if (text.empty()) pattern["String"].refuse("one character or more");
  return text;
}

/// A string of one character.
inline const std::string& one_character(const JsonField& field) {
  const std::string& text = field.string();
  if (text.empty() || utf8_unit(text).bytes != text.size()) field.refuse("one character");
  return text;
}

/// A regular expression of a file.
inline std::shared_ptr<const Regex> read_regex(const JsonField& field) {
  try {
    return std::make_shared<const Regex>(field.string(), CharacterProperties());
  } catch (const RegexError& error) {
    field.refuse(in_quotes(field.string()) + " (" + error.problem + " at byte " + std::to_string(error.at) + ")",
                 error.allowed);
  }
}

/// One after the other, replacements could make a text longer than any memory.
class ReplacementGrowth {
 public:
  void check(const JsonField& replace, const std::string& from, const std::string& to) {
    growth_ *= std::max<std::size_t>(1, (std::min<std::size_t>(to.size(), 4096) + from.size() - 1) / from.size());
    if (growth_ > 64) replace["content"].refuse("strings that make no text longer than 64 times itself");
  }

 private:
  std::size_t growth_ = 1;
};

class Normalizer {
 public:
  Normalizer() = default;
  explicit Normalizer(const JsonField& field) { add(field); }

  /// Whether it leaves every text as it is.
  bool empty() const { return steps_.empty(); }

  std::string operator()(std::string_view text) const {
    std::string result(text);
    for (const Step& step : steps_) {
      if (const auto* form = std::get_if<UnicodeNormalizer>(&step)) {
        result = (*form)(result);
      } else if (const auto* replace = std::get_if<Replace>(&step)) {
        result = replace_all(result, replace->from, replace->to);
      } else if (!result.empty()) {
        result.insert(0, std::get<std::string>(step));
      }
    }
    return result;
  }

 private:
  struct Replace {
    std::string from, to;
  };
  using Step = std::variant<UnicodeNormalizer, Replace, std::string>;  // the string is to be prepended

  void add(const JsonField& field) {
    if (field.is_null()) return;
    switch (field["type"].choice({"NFC", "NFD", "NFKC", "NFKD", "Replace", "Prepend", "Sequence"})) {
      case 0:
        steps_.emplace_back(UnicodeNormalizer(NormalForm::Nfc));
        break;
      case 1:
        steps_.emplace_back(UnicodeNormalizer(NormalForm::Nfd));
        break;
      case 2:
        steps_.emplace_back(UnicodeNormalizer(NormalForm::Nfkc));
        break;
      case 3:
        steps_.emplace_back(UnicodeNormalizer(NormalForm::Nfkd));
        break;
      case 4:
        steps_.emplace_back(Replace{literal_pattern(field["pattern"]), field["content"].string()});
        growth_.check(field, std::get<Replace>(steps_.back()).from, std::get<Replace>(steps_.back()).to);
        break;
      case 5:
        steps_.emplace_back(field["prepend"].string());
        if (field["prepend"].string().size() > 1024) field["prepend"].refuse("at most 1024 bytes");
        break;
      default:
        for (const JsonField& part : field["normalizers"].elements()) add(part);
    }
    if (steps_.size() > 32) field.refuse("more than 32 steps", "at most 32 steps in all");
  }

  std::vector<Step> steps_;
  ReplacementGrowth growth_;
};

}  // namespace moe_mamba::detail
