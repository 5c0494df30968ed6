#pragma once

#include <cmath>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/language/spelling.hpp"

/// A definition as data: the words of the definition language with their values. Two things are turned into it, a
/// definition and a checkpoint's config.json, so that they can be compared and the latter be spelled as the former.
namespace moe_mamba::families {

/// One option with its value.
struct Word {
  std::string option;      // "State"
  std::string spelling;    // "State<16>", or in words where a definition says it by leaving something out
  bool standard = false;   // it holds where a definition says nothing
  double number = 0;       // its value where it has one
  std::string also = {};   // another spelling that does as well
  std::string field = {};  // of the config.json that it comes from
  std::string given = {};  // what that field says
  bool free = false;       // any value does
};

inline Word integer(const char* option, Index value, Index standard) {
  return {option, std::string(option) + "<" + std::to_string(value) + ">", value == standard,
          static_cast<double>(value)};
}

/// An option that is there or not.
inline Word flag(const char* option, bool given) {
  return {option, (given ? "" : "no ") + std::string(option), !given, given ? 1.0 : 0.0};
}

/// One of several words that exclude each other.
inline Word choice(const char* option, const std::string& spelling, const char* standard) {
  return {option, spelling, spelling == standard};
}

/// A positive number as a ratio of integers, as the definition language has it.
struct RatioWord {
  int numerator = 1, denominator = 100'000;

  RatioWord() = default;
  RatioWord(int n, int d) : numerator(n), denominator(d) {
    const int common = std::gcd(n, d);
    if (common > 1) numerator = n / common, denominator = d / common;
  }
  double value() const { return static_cast<double>(numerator) / denominator; }

  /// The decimal fraction of up to nine places that lies within float's rounding of a number; none for others.
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

/// A layer of the body: its name, its words, and the norm in front of it.
struct LayerWords {
  std::string name;
  std::vector<Word> words;
  Word norm = {"PreNorm", "RmsNorm<>", true, 1e-5};

  /// With the norm where that is not `pre_norm`, the model's.
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
  Word depth = {};  // no word of the language: the field that says how many layers there are

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

/// What a config says, what a definition says, and where.
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
                    has_value ? config.spelling : config.given + ", which is " + config.spelling,
                    definition.spelling + ", as the definition says"};
}

}  // namespace detail

/// The first thing in which a config and a definition disagree.
inline std::optional<Difference> difference(const Architecture& config, const Architecture& definition) {
  for (const Word& word : config.words) {
    if (auto found = detail::difference(word, definition.at(word.option), "")) return found;
  }
  if (config.layers.size() != definition.layers.size()) {
    return Difference{config.depth.field.empty() ? "number of layers" : config.depth.field,
                      std::to_string(config.layers.size()),
                      std::to_string(definition.layers.size()) + ", as the definition has layers"};
  }
  for (std::size_t i = 0; i < config.layers.size(); ++i) {
    const LayerWords &ours = definition.layers[i], &theirs = config.layers[i];
    const std::string where = "layer " + std::to_string(i) + ": ";
    if (ours.name != theirs.name) {
      return Difference{where + "kind", theirs.name, ours.name + ", as the definition says"};
    }
    if (auto found = detail::difference(theirs.norm, ours.norm, where)) return found;
    for (const Word& word : theirs.words) {
      const Word* same = ours.find(word.option);
      if (auto found = detail::difference(word, same == nullptr ? Word{} : *same, where)) return found;
    }
  }
  return std::nullopt;
}

}  // namespace moe_mamba::families
