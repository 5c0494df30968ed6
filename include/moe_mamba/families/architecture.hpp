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
struct OptionSpec {
  std::string name;              // "State"
  std::string spelling;          // "State<16>", or a description if a definition expresses it by omission
  bool is_default = false;       // whether it has its default value, which spellings omit
  double number = 0;             // its numeric value, if any
  std::string alternative = {};  // another spelling that is accepted
  std::string field = {};        // the field of config.json that it comes from
  std::string given = {};        // the value of that field
  bool any_value = false;        // any value is accepted
};

inline OptionSpec integer(const char* name, Index value, Index default_value) {
  return {name, std::string(name) + "<" + std::to_string(value) + ">", value == default_value,
          static_cast<double>(value)};
}

/// An option without a value.
inline OptionSpec flag(const char* name, bool given) {
  return {name, (given ? "" : "no ") + std::string(name), !given, given ? 1.0 : 0.0};
}

/// One of several mutually exclusive options.
inline OptionSpec choice(const char* name, const std::string& spelling, const char* default_spelling) {
  return {name, spelling, spelling == default_spelling};
}

/// A positive number as a fraction in lowest terms, as in the definition language.
struct Fraction {
  int numerator = 1, denominator = 100'000;

  Fraction() = default;
  Fraction(int n, int d) : numerator(n), denominator(d) {
    const int common = std::gcd(n, d);
    if (common > 1) numerator = n / common, denominator = d / common;
  }
  double value() const { return static_cast<double>(numerator) / denominator; }

  /// The decimal fraction of up to nine places that equals a number up to float rounding, if there is one.
  static std::optional<Fraction> of(double value) {
    int power = 1;
    for (int places = 0; places <= 9; ++places) {
      const double scaled = value * power, whole = std::round(scaled);
      if (whole >= 1 && whole < 1e9 && std::abs(scaled - whole) <= 1e-6 * whole) {
        return Fraction(static_cast<int>(whole), power);
      }
      if (places < 9) power *= 10;
    }
    return std::nullopt;
  }
};

/// A norm: RmsNorm<Epsilon<1, 1000000>>.
struct NormSpec {
  std::string kind = "RmsNorm";
  Fraction epsilon = {};
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
struct LayerSpec {
  std::string name;
  std::vector<OptionSpec> options;
  OptionSpec norm = {"PreNorm", "RmsNorm<>", true, 1e-5};

  /// Includes the norm if it is not the model's `pre_norm`.
  std::string spelling(const std::string& pre_norm) const {
    std::string arguments;
    for (const OptionSpec& option : options) {
      if (!option.is_default) arguments += (arguments.empty() ? "" : ", ") + option.spelling;
    }
    const std::string layer = options.empty() ? name : name + "<" + arguments + ">";
    return norm.spelling == pre_norm ? layer : "Residual<" + norm.spelling + ", " + layer + ">";
  }
  /// The option of that name, or null.
  const OptionSpec* find(const std::string& option_name) const {
    for (const OptionSpec& option : options) {
      if (option.name == option_name) return &option;
    }
    return nullptr;
  }
  /// The numeric value of an option, or 0 if the layer does not have it.
  Index operator[](const char* option_name) const {
    const OptionSpec* option = find(option_name);
    return option == nullptr ? 0 : static_cast<Index>(option->number);
  }
};

/// A whole language model.
struct Architecture {
  std::vector<OptionSpec> options;  // Vocabulary, Width, the head, FinalNorm
  std::vector<LayerSpec> layers;
  OptionSpec depth = {};  // not an option of the language: the field with the number of layers

  /// The option of that name, or an empty one.
  const OptionSpec& at(const std::string& name) const {
    for (const OptionSpec& option : options) {
      if (option.name == name) return option;
    }
    static const OptionSpec none;
    return none;
  }
  Index operator[](const char* name) const { return static_cast<Index>(at(name).number); }
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
  for (const OptionSpec& option : options) {
    if (!option.is_default) add(option.spelling);
  }
  const std::string default_norm = "RmsNorm<>", pre_norm = layers.empty() ? default_norm : layers.front().norm.spelling;
  if (pre_norm != default_norm) add("PreNorm<" + pre_norm + ">");
  std::vector<std::string> items;
  for (const LayerSpec& layer : layers) items.push_back(layer.spelling(pre_norm));
  if (!items.empty()) add(moe_mamba::detail::body_spelling(items));
  return text + ">";
}

/// A field, its value in a config, and that in a definition.
struct Difference {
  std::string field, given, allowed;
};

namespace detail {

inline std::optional<Difference> difference(const OptionSpec& config, const OptionSpec& definition,
                                            const std::string& where) {
  const bool is_alternative = !config.alternative.empty() && config.alternative == definition.spelling;
  const bool is_any = config.any_value && config.name == definition.name;
  if (config.spelling == definition.spelling || is_alternative || is_any) return std::nullopt;
  const bool has_value = config.given.empty() || config.given == config.spelling;
  return Difference{where + (config.field.empty() ? config.name : config.field),
                    has_value ? config.spelling : config.given + ", which means " + config.spelling,
                    definition.spelling + ", as in the definition"};
}

}  // namespace detail

/// The first difference between a config and a definition.
inline std::optional<Difference> difference(const Architecture& config, const Architecture& definition) {
  for (const OptionSpec& option : config.options) {
    if (auto found = detail::difference(option, definition.at(option.name), "")) return found;
  }
  if (config.layers.size() != definition.layers.size()) {
    return Difference{config.depth.field.empty() ? "number of layers" : config.depth.field,
                      std::to_string(config.layers.size()),
                      std::to_string(definition.layers.size()) + ", the definition's number of layers"};
  }
  for (std::size_t i = 0; i < config.layers.size(); ++i) {
    const LayerSpec &ours = definition.layers[i], &theirs = config.layers[i];
    const std::string where = "layer " + std::to_string(i) + ": ";
    if (ours.name != theirs.name) {
      return Difference{where + "kind", theirs.name, ours.name + ", as in the definition"};
    }
    if (auto found = detail::difference(theirs.norm, ours.norm, where)) return found;
    for (const OptionSpec& option : theirs.options) {
      const OptionSpec* same = ours.find(option.name);
      if (auto found = detail::difference(option, same == nullptr ? OptionSpec{} : *same, where)) return found;
    }
  }
  return std::nullopt;
}

}  // namespace moe_mamba::inline v0_2::families
