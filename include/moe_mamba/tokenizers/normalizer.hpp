#pragma once

#include <cstddef>
#include <functional>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moe_mamba/tokenizers/byte_alphabet.hpp"
#include "moe_mamba/tokenizers/file_pattern.hpp"
#include "moe_mamba/tokenizers/precompiled_map.hpp"
#include "moe_mamba/tokenizers/text_cleaning.hpp"

/// The first stage of a tokenizer: normalises the text before it is split.
namespace moe_mamba::inline v0_2::detail {

class Normalizer {
 public:
  Normalizer() = default;
  explicit Normalizer(const JsonField& field) { add(field); }

  /// Whether it leaves every text unchanged.
  bool empty() const { return steps_.empty(); }

  std::string operator()(std::string_view text) const {
    std::ptrdiff_t none = -1;
    return (*this)(text, none);
  }

  /// The same. Offsets up to `begin` belong to the beginning of the whole text, on entry and on return; none if it is
  /// negative.
  std::string operator()(std::string_view text, std::ptrdiff_t& begin) const {
    std::string result(text);
    for (const Step& step : steps_) {
      if (begin >= std::ssize(result)) begin = -1;
      result = step(result, begin);
    }
    return result;
  }

 private:
  using Step = std::function<std::string(std::string_view, std::ptrdiff_t& begin)>;

  /// Adds a step that changes a prefix of a text in the same way alone as within the whole text.
  template <class Change>
  void add_step(Change change) {
    steps_.emplace_back([change = std::move(change)](std::string_view text, std::ptrdiff_t& begin) {
      if (begin >= 0) begin = last_unit(change(text.substr(0, unit_end(text, begin))));
      return std::string(change(text));
    });
  }
  void add(const JsonField& field);
  void add_bert(const JsonField& field);

  std::vector<Step> steps_;
  TextGrowth growth_;
};

inline void Normalizer::add(const JsonField& field) {
  if (field.is_null()) return;
  const std::size_t type =
      field["type"].choice({"NFC", "NFD", "NFKC", "NFKD", "Replace", "Prepend", "Sequence", "BertNormalizer",
                            "ByteLevel", "Lowercase", "Nmt", "Precompiled", "Strip", "StripAccents"});
  switch (type) {
    case 0:
    case 1:
    case 2:
    case 3: {
      constexpr NormalForm forms[] = {NormalForm::Nfc, NormalForm::Nfd, NormalForm::Nfkc, NormalForm::Nfkd};
      add_step(UnicodeNormalizer(forms[type]));
      break;
    }
    case 4: {
      Replacement replacement(field);
      if (!replacement.takes_characters()) {
        field["pattern"]["Regex"].refuse(
            "an expression that matches at least one character, as the reference duplicates text otherwise");
      }
      growth_.check(field["content"], replacement.growth());
      steps_.emplace_back(std::move(replacement));
      break;
    }
    case 5: {
      const std::string& prefix = field["prepend"].string();
      if (prefix.size() > 1024) field["prepend"].refuse("at most 1024 bytes");
      add_step([prefix](std::string_view text) { return text.empty() ? "" : prefix + std::string(text); });
      break;
    }
    case 6:
      for (const JsonField& part : field["normalizers"].elements()) add(part);
      break;
    case 7:
      add_bert(field);
      break;
    case 8:
      growth_.check(field["type"], 2);
      add_step(written_bytes);
      break;
    case 9:
      add_step(lower_case);
      break;
    case 10:
      add_step(clean_for_translation);
      break;
    case 11: {
      PrecompiledMap map(field["precompiled_charsmap"]);
      growth_.check(field["precompiled_charsmap"], map.growth());
      steps_.emplace_back(std::move(map));
      break;
    }
    case 12: {
      const bool left = field["strip_left"].boolean(), right = field["strip_right"].boolean();
      steps_.emplace_back([=](std::string_view text, std::ptrdiff_t& begin) {
        const std::string_view result = stripped(text, left, right);
        if (begin >= 0) {
          const std::string_view head = stripped(text.substr(0, unit_end(text, begin)), left, false);
          begin = last_unit(head.substr(0, result.size()));
        }
        return std::string(result);
      });
      break;
    }
    default:
      add_step(without_marks);
  }
  if (steps_.size() > 32) field.refuse("more than 32 steps", "at most 32 steps in total");
}

inline void Normalizer::add_bert(const JsonField& field) {
  const bool lower = field["lowercase"].boolean();
  if (field["clean_text"].boolean()) add_step(clean_text);
  if (field["handle_chinese_chars"].boolean()) add_step(with_spaced_chinese);
  if (field["strip_accents"].boolean_or(lower)) {
    add_step(UnicodeNormalizer(NormalForm::Nfd));
    add_step(without_nonspacing_marks);
  }
  if (lower) add_step(lower_case);
}

}  // namespace moe_mamba::inline v0_2::detail
