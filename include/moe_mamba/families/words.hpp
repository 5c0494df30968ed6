#pragma once

#include <cmath>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/language/spelling.hpp"

/// A definition as data: the options of the definition language with their values. Both definitions and config.json are
/// converted to it, so that they can be compared and a config be printed as a definition.
namespace moe_mamba::inline v0_2::families {

/// One option with its value.
struct Word {
  std::string option;      // "State"
  std::string spelling;    // "State<16>", or a description if a definition expresses it by omission
  bool standard = false;   // whether it is the default
  double number = 0;       // its numeric value, if any
  std::string also = {};   // an alternative spelling that is accepted
  std::string field = {};  // the field of config.json that it comes from
  std::string given = {};  // the value of that field
  bool free = false;       // any value is accepted
};

inline Word integer(const char* option, Index value, Index standard) {
  return {option, std::string(option) + "<" + std::to_string(value) + ">", value == standard,
          static_cast<double>(value)};
}

/// An option without a value.
inline Word flag(const char* option, bool given) {
  return {option, (given ? "" : "no ") + std::string(option), !given, given ? 1.0 : 0.0};
}

/// One of several mutually exclusive options.
inline Word choice(const char* option, const std::string& spelling, const char* standard) {
  return {option, spelling, spelling == standard};
}

/// A positive number as a ratio of integers, as in the definition language.
struct RatioWord {
  int numerator = 1, denominator = 100'000;

  RatioWord() = default;
  RatioWord(int n, int d) : numerator(n), denominator(d) {
    const int common = std::gcd(n, d);
    if (common > 1) numerator = n / common, denominator = d / common;
  }
  double value() const { return static_cast<double>(numerator) / denominator; }

  /// The decimal fraction of up to nine places that equals a number up to float rounding, if there is one.
  static std::optional<RatioWord> of(double value) {
    int power = 1;
    for (int places = 0; places <= 9; ++places) {
      const double scaled = value * power, whole = std::round(scaled);
      if (whole >= 1 && whole < 1e9 && std::abs(scaled - whole) <= 1e-6 * whole) {
        return RatioWord(static_cast<int>(whole), power);
      }
      if (places < 9) power *= 10;
    }
    return std::nullopt;
  }
};

/// A norm: RmsNorm<Epsilon<1, 1000000>>.
struct NormWords {
  std::string kind = "RmsNorm";
  RatioWord epsilon = {};
  bool gain = true;

  std::string spelling() const {
    if (kind != "RmsNorm" && kind != "LayerNorm") return kind;
    std::string options = gain ? "" : "NoGain";
    if (epsilon.numerator != 1 || epsilon.denominator != 100'000) {
      options += (options.empty() ? "" : ", ") + std::string("Epsilon<") + std::to_string(epsilon.numerator) + ", " +
                 std::to_string(epsilon.denominator) + ">";
    }
    return kind + "<" + options + ">";
  }
  double number() const { return epsilon.value(); }
};

/// A layer of the body: its name, its options, and its pre-norm.
struct LayerWords {
  std::string name;
  std::vector<Word> words;
  Word norm = {"PreNorm", "RmsNorm<>", true, 1e-5};

  /// Includes the norm if it is not the model's `pre_norm`.
  std::string spelling(const std::string& pre_norm) const {
    std::string options;
    for (const Word& word : words) {
      if (!word.standard) options += (options.empty() ? "" : ", ") + word.spelling;
    }
    const bool plain = words.empty() && options.empty();
    const std::string layer = plain ? name : name + "<" + options + ">";
    return norm.spelling == pre_norm ? layer : "Residual<" + norm.spelling + ", " + layer + ">";
  }
  const Word* find(const std::string& option) const {
    for (const Word& word : words) {
      if (word.option == option) return &word;
    }
    return nullptr;
  }
  Index operator[](const char* option) const {
    const Word* word = find(option);
    return word == nullptr ? 0 : static_cast<Index>(word->number);
  }
};

/// A whole language model.
struct Architecture {
  std::vector<Word> words;  // Vocabulary, Width, the head, FinalNorm
  std::vector<LayerWords> layers;
  Word depth = {};  // not an option of the language: the field with the number of layers

  const Word& at(const std::string& option) const {
    for (const Word& word : words) {
      if (word.option == option) return word;
    }
    static const Word none;
    return none;
  }
  Index operator[](const char* option) const { return static_cast<Index>(at(option).number); }
  bool tied_head() const { return at("the head").spelling == "TiedHead"; }

  /// The definition, in C++.
  std::string spelling() const;
};

inline std::string Architecture::spelling() const {
  std::string text = "LanguageModel<";
  bool first = true;
  const auto add = [&](const std::string& argument) {
    text += (first ? "" : ", ") + argument;
    first = false;
  };
  for (const Word& word : words) {
    if (!word.standard) add(word.spelling);
  }
  const std::string standard = "RmsNorm<>", pre_norm = layers.empty() ? standard : layers.front().norm.spelling;
  if (pre_norm != standard) add("PreNorm<" + pre_norm + ">");
  std::vector<std::string> items;
  for (const LayerWords& layer : layers) items.push_back(layer.spelling(pre_norm));
  if (!items.empty()) add(moe_mamba::detail::body_spelling(items));
  return text + ">";
}

/// A field, its value in a config, and that in a definition.
struct Difference {
  std::string field, given, allowed;
};

namespace detail {

inline std::optional<Difference> difference(const Word& config, const Word& definition, const std::string& where) {
  const bool is_other_spelling = !config.also.empty() && config.also == definition.spelling;
  const bool is_free = config.free && config.option == definition.option;
  if (config.spelling == definition.spelling || is_other_spelling || is_free) return std::nullopt;
  const bool has_value = config.given.empty() || config.given == config.spelling;
  return Difference{where + (config.field.empty() ? config.option : config.field),
                    has_value ? config.spelling : config.given + ", which means " + config.spelling,
                    definition.spelling + ", as in the definition"};
}

}  // namespace detail

/// The first difference between a config and a definition.
inline std::optional<Difference> difference(const Architecture& config, const Architecture& definition) {
  for (const Word& word : config.words) {
    if (auto found = detail::difference(word, definition.at(word.option), "")) return found;
  }
  if (config.layers.size() != definition.layers.size()) {
    return Difference{config.depth.field.empty() ? "number of layers" : config.depth.field,
                      std::to_string(config.layers.size()),
                      std::to_string(definition.layers.size()) + ", the definition's number of layers"};
  }
  for (std::size_t i = 0; i < config.layers.size(); ++i) {
    const LayerWords &ours = definition.layers[i], &theirs = config.layers[i];
    const std::string where = "layer " + std::to_string(i) + ": ";
    if (ours.name != theirs.name) {
      return Difference{where + "kind", theirs.name, ours.name + ", as in the definition"};
    }
    if (auto found = detail::difference(theirs.norm, ours.norm, where)) return found;
    for (const Word& word : theirs.words) {
      const Word* same = ours.find(word.option);
      if (auto found = detail::difference(word, same == nullptr ? Word{} : *same, where)) return found;
    }
  }
  return std::nullopt;
}

}  // namespace moe_mamba::inline v0_2::families
