#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "corpus.hpp"
#include "history.hpp"
#include "moe_mamba/io/checkpoint.hpp"
#include "options.hpp"
#include "support/terminal.hpp"

/// The parameters of a training run that must not change when it is resumed.
namespace quickstart {

using namespace support;

/// Training hyperparameters, tuned on the headers of Eigen.
struct Settings {
  Index length = 256;  ///< bytes per window
  Index batch = 4;     ///< windows per step
  double learning_rate = 6e-3;
  Index warmup = 100;   ///< steps, or a tenth of a short run
  double floor = 0.05;  ///< of the learning rate, at the end
  double weight_decay = 0.1;

  Index tokens() const { return length * batch; }
  std::string text() const {
    return format(
        "batches of %lld windows of %lld bytes, AdamW, learning rate %g after %lld steps of warm-up, then "
        "along a cosine to %g of it, weight decay %g",
        static_cast<long long>(batch), static_cast<long long>(length), learning_rate, static_cast<long long>(warmup),
        floor, weight_decay);
  }
};

/// Those of --compare.
inline constexpr Settings small_settings = {.length = 128, .batch = 16, .learning_rate = 8e-3, .floor = 0.1};

/// Everything that determines a run, and must not change before it ends.
struct Plan {
  std::string definition, settings, text;
  std::uint64_t fingerprint = 0;  ///< of the text
  std::uint64_t seed = 1;
  std::string budget;  ///< as requested: "3 minutes", "500 steps"
  Index steps = 0;     ///< the resulting number of steps

  /// Adopts what makes two runs comparable.
  void follow(const Plan& other) {
    seed = other.seed;
    budget = other.budget;
    steps = other.steps;
  }

  std::map<std::string, std::string> metadata() const {
    return {{"quickstart.definition", definition},
            {"quickstart.settings", settings},
            {"quickstart.text", text},
            {"quickstart.fingerprint", std::to_string(fingerprint)},
            {"quickstart.seed", std::to_string(seed)},
            {"quickstart.budget", budget},
            {"quickstart.steps", std::to_string(steps)}};
  }
};

/// The requested plan; its number of steps is not determined yet.
inline Plan wanted_plan(std::string definition, const Settings& settings, const Corpus& corpus,
                        const Options& options) {
  Plan plan;
  plan.definition = std::move(definition);
  plan.settings = settings.text();
  plan.text = corpus.label;
  plan.fingerprint = corpus.fingerprint;
  plan.seed = options.seed.value_or(1);
  plan.budget =
      options.steps ? std::to_string(*options.steps) + " steps" : format("%g minutes", options.minutes.value_or(3));
  return plan;
}

/// The plan of the run that a checkpoint belongs to, if there is a checkpoint. Throws std::runtime_error with the
/// difference if it is not the requested run (`wanted`). A seed or a budget that `options` does not give is taken from
/// the checkpoint.
inline std::optional<Plan> stored_plan(const std::filesystem::path& checkpoint, const Plan& wanted,
                                       const Options& options) {
  if (options.fresh || !std::filesystem::exists(checkpoint)) return std::nullopt;
  const moe_mamba::SafetensorsFile file(checkpoint);
  const auto entry = [&](const char* key) {
    const auto found = file.metadata().find(std::string("quickstart.") + key);
    if (found != file.metadata().end()) return found->second;
    throw std::runtime_error(checkpoint.string() +
                             ": is not a checkpoint of the quickstart; use --fresh to start over");
  };
  const auto compare = [&](const char* what, const std::string& then, const std::string& now) {
    if (then == now) return;
    throw std::runtime_error(checkpoint.string() + ": was started with the " + what + " " + then + ", not " + now +
                             "; use --fresh to start over");
  };
  const auto number = [&](const char* key) {
    return support::number<std::uint64_t>(key, entry(key), 0, ~std::uint64_t{0}, "an integer");
  };
  Plan plan{entry("definition"),
            entry("settings"),
            entry("text"),
            number("fingerprint"),
            number("seed"),
            entry("budget"),
            static_cast<Index>(number("steps"))};
  compare("definition", plan.definition, wanted.definition);
  compare("settings", plan.settings, wanted.settings);
  if (plan.fingerprint != wanted.fingerprint) {
    compare("text", plan.text, wanted.text == plan.text ? "the same files with other contents" : wanted.text);
  }
  if (options.seed) compare("seed", std::to_string(plan.seed), std::to_string(wanted.seed));
  if (options.steps || options.minutes) compare("budget", plan.budget, wanted.budget);
  return plan;
}

}  // namespace quickstart
