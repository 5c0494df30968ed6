#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bits/definitions.hpp"
#include "model/definitions.hpp"
#include "moe_mamba/moe_mamba.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

/// Files written by an older version, tests/fixtures/files: for each model a file, a checkpoint of its training and, as
/// text, the results of both.
namespace test::older {

using namespace moe_mamba;

/// Updates before a checkpoint, and after it.
inline constexpr int updates_before = 4, updates_after = 3;

/// The outputs of a model's file.
template <class Definition, class S>
std::vector<double> outputs_of(const std::filesystem::path& path) {
  using C = compute_t<S>;
  const auto model = load<Definition, S>(path);
  const auto batch = data<Definition, C>({2, 9});
  Cpu device;
  Workspace<Definition, S> workspace(device, batch.shape);
  auto outputs = poison<C>(batch.shape.tokens() * Definition::output_width);
  model.forward(workspace, batch.inputs, batch.shape, outputs);
  return converted<double>(outputs);
}

/// Windows of a text: consecutive if states are carried, otherwise random.
template <bool Carried>
auto windows_of(const std::vector<Token>& text) {
  if constexpr (Carried) {
    return sequential_windows(text, Length{11}, Batch{2});
  } else {
    return windows(text, Length{11}, Batch{2}, Seed{5});
  }
}

/// A training run interrupted by a checkpoint; if the model is stored as float, it carries its states from batch to
/// batch.
template <class Definition, class S>
class Training {
 public:
  explicit Training(Seed seed)
      : model_(seed),
        trainer_(model_, AdamW{.learning_rate = 1e-2}, Cosine{.warmup = 2, .steps = 20},
                 TrainerOptions{.clip_norm = 0.5, .carry_states = carries}) {}

  /// Does `count` updates; returns the losses before each.
  std::vector<double> steps(int count) {
    std::vector<double> losses;
    for (int i = 0; i < count; ++i) losses.push_back(step());
    return losses;
  }

  void save(const std::filesystem::path& path) {
    save_checkpoint(path, trainer_, windows_.state(), {{"purpose", "kept for tests"}});
  }
  CheckpointInfo resume(const std::filesystem::path& path) {
    auto info = load_checkpoint(path, trainer_);
    windows_.restore(info.windows);
    return info;
  }
  Index updates() const { return trainer_.steps(); }

 private:
  static constexpr bool carries = std::same_as<S, float>;
  using Windows = decltype(windows_of<carries>(std::declval<const std::vector<Token>&>()));

  static std::vector<Token> text() {
    int vocabulary = 1;
    if constexpr (TokenDefinition<Definition>) vocabulary = Definition::vocabulary;
    std::vector<Token> tokens;
    for (int i = 0; i < 400; ++i) tokens.push_back((i * i + i / 7) % vocabulary);
    return tokens;
  }

  double step() {
    const TokenBatch tokens = windows_.next();
    if constexpr (TokenDefinition<Definition>) {
      return trainer_.step(tokens).loss;
    } else {  // as long and as continuous, but numbers
      const auto batch = data<Definition, compute_t<S>>(tokens.shape, static_cast<std::uint64_t>(trainer_.steps()));
      return trainer_.step(SeriesBatch<compute_t<S>>{batch.inputs, batch.targets, batch.shape, tokens.continues}).loss;
    }
  }

  std::vector<Token> text_ = text();
  Windows windows_ = windows_of<carries>(text_);
  Model<Definition, S> model_;
  Trainer<Definition, S, Cpu, Cosine> trainer_;
};

/// The files of a definition with parameters of a type.
template <class Definition, class S>
struct Files {
  const char* name;

  /// Other instruction sets and compilers add in a different order, which changes outputs and losses by some units in
  /// the last place of the compute type. bfloat16 parameters may also round differently.
  static constexpr double tolerance = std::same_as<S, double> ? 1e-12 : std::same_as<S, float> ? 1e-5 : 1e-4;

  void check() const {
    INFO(name);
    CHECK(relative_error(outputs_of<Definition, S>(path(".model.safetensors")), kept("outputs")) < tolerance);
    Training<Definition, S> training(Seed{99});
    const CheckpointInfo info = training.resume(path(".checkpoint.safetensors"));
    CHECK(info.metadata == std::map<std::string, std::string>{{"purpose", "kept for tests"}});
    CHECK(training.updates() == updates_before);
    CHECK(relative_error(training.steps(updates_after), kept("losses")) < tolerance);
    CHECK_NOTHROW(load<Definition, S>(path(".checkpoint.safetensors")));
  }

  void write() const {
    std::filesystem::create_directories(path("").parent_path());
    Model<Definition, S> model(Uninitialised{});
    model.write(converted<S>(parameters<Definition>()));
    save(model, path(".model.safetensors"), {{"purpose", "kept for tests"}});
    Training<Definition, S> training(Seed{3});
    training.steps(updates_before);
    training.save(path(".checkpoint.safetensors"));

    std::ofstream text(path(".txt"));
    const auto add = [&](const char* what, const std::vector<double>& values) {
      text << what;
      for (const double value : values) text << ' ' << std::setprecision(std::same_as<S, double> ? 15 : 7) << value;
      text << '\n';
    };
    add("outputs", outputs_of<Definition, S>(path(".model.safetensors")));
    add("losses", training.steps(updates_after));
    if (!text.flush()) throw std::runtime_error("cannot write " + path(".txt").string());
  }

 private:
  /// In tests/fixtures/files/0.1, or the folder that MOE_MAMBA_OLDER_FILES names.
  std::filesystem::path path(const char* ending) const {
    const char* folder = std::getenv("MOE_MAMBA_OLDER_FILES");
    const auto standard = std::filesystem::path(__FILE__).parent_path().parent_path() / "fixtures" / "files" / "0.1";
    return (folder != nullptr ? folder : standard) / (std::string(name) + ending);
  }

  /// The numbers of a line of the text.
  std::vector<double> kept(const std::string& what) const {
    std::ifstream file(path(".txt"));
    for (std::string line; std::getline(file, line);) {
      std::istringstream words(line);
      std::string first;
      words >> first;
      if (first != what) continue;
      std::vector<double> values;
      for (double value = 0; words >> value;) values.push_back(value);
      return values;
    }
    throw std::runtime_error("there are no " + what + " in " + path(".txt").string());
  }
};

template <class... All>
void check(const std::tuple<All...>& all) {
  std::apply([](const auto&... files) { (files.check(), ...); }, all);
}

/// Run by hand, for files of another version: see tests/fixtures/README.md.
template <class... All>
void write(const std::tuple<All...>& all) {
  std::apply([](const auto&... files) { (files.write(), ...); }, all);
}

}  // namespace test::older
