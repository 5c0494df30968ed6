#pragma once

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "curve.hpp"
#include "moe_mamba/io/checkpoint.hpp"
#include "moe_mamba/train/trainer.hpp"
#include "moe_mamba/train/windows.hpp"
#include "run.hpp"
#include "specialisation.hpp"

/// One training run of one definition.
namespace paper {

inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Measures a model on held-out text: windows of the training length, each from an empty state, as in training.
template <class Definition, class S, class Backend>
class Evaluation {
 public:
  Evaluation(const moe_mamba::Model<Definition, S, Backend>& model, Backend& device,
             const std::vector<unsigned char>& text, Index length)
      : model_(model),
        windows_(moe_mamba::sequential_windows(text, moe_mamba::Length{length}, rows(text, length))),
        workspace_(device, windows_.shape()) {}

  /// Nats per byte.
  double loss() {
    double sum = 0;
    for (Index i = 0; i < windows_.batches_per_pass(); ++i) {
      const auto batch = windows_.next();
      sum += model_.loss(workspace_, batch.inputs, batch.targets, batch.shape).prediction;
    }
    return sum / static_cast<double>(windows_.batches_per_pass());
  }

  /// The share of bytes for which the model's most likely byte is right.
  double accuracy() {
    constexpr auto vocabulary = static_cast<std::size_t>(Definition::vocabulary);
    logits_.resize(static_cast<std::size_t>(windows_.shape().tokens()) * vocabulary);
    Index right = 0;
    for (Index i = 0; i < windows_.batches_per_pass(); ++i) {
      const auto batch = windows_.next();
      model_.forward(workspace_, batch.inputs, batch.shape, std::span(logits_));
      for (std::size_t row = 0; row < batch.targets.size(); ++row) {
        const auto begin = logits_.begin() + static_cast<std::ptrdiff_t>(row * vocabulary);
        right += std::max_element(begin, begin + static_cast<std::ptrdiff_t>(vocabulary)) - begin == batch.targets[row];
      }
    }
    return static_cast<double>(right) / static_cast<double>(windows_.batches_per_pass() * windows_.shape().tokens());
  }

 private:
  static moe_mamba::Batch rows(const std::vector<unsigned char>& text, Index length) {
    constexpr Index tokens = 16384;  // in a batch
    return {std::clamp<Index>((static_cast<Index>(text.size()) - 1) / length, 1, std::max<Index>(tokens / length, 1))};
  }

  const moe_mamba::Model<Definition, S, Backend>& model_;
  moe_mamba::SequentialWindows<unsigned char> windows_;
  moe_mamba::Workspace<Definition, S, Backend> workspace_;
  std::vector<moe_mamba::compute_t<S>> logits_;
};

/// Trains a definition on a device; see System::train.
template <class Definition, class S, class Backend>
class Training {
 public:
  Training(Backend& device, std::string system, const Run& run, const Recipe& recipe, const Corpus& corpus,
           const std::filesystem::path& folder, Monitor& monitor)
      : run_(run),
        corpus_(corpus),
        recipe_(recipe),
        monitor_(monitor),
        system_(std::move(system)),
        name_(run.name(system_)),
        folder_(folder),
        checkpoint_(folder / (name_ + ".checkpoint.safetensors")),
        device_(device),
        model_(moe_mamba::Seed{run.seed}),
        trainer_(model_, device, moe_mamba::AdamW{.learning_rate = run.rate, .weight_decay = recipe.weight_decay},
                 moe_mamba::Cosine{
                     .warmup = std::max<Index>(1, static_cast<Index>(recipe.warmup * static_cast<double>(run.steps))),
                     .steps = run.steps,
                     .floor = recipe.floor},
                 moe_mamba::TrainerOptions{.largest = {recipe.batch, recipe.length}, .clip_norm = recipe.clip_norm}),
        windows_(moe_mamba::windows(corpus.training, moe_mamba::Length{recipe.length}, moe_mamba::Batch{recipe.batch},
                                    moe_mamba::Seed{run.seed})),
        evaluation_(model_, device, run.purpose == Purpose::tuning ? corpus.tuning : corpus.held_out, recipe.length) {}

  void go() {
    begin();
    double kept = seconds_now();
    while (trainer_.steps() < run_.steps) {
      if (monitor_.interrupted()) return keep();
      const double before = seconds_now();
      const auto report = trainer_.step(windows_.next());
      seconds_ += seconds_now() - before;
      if (!report.applied) throw std::runtime_error(name_ + ": the gradient of a step is not finite");
      loss_sum_ += report.loss;
      ++losses_;
      const Index step = trainer_.steps();
      if (step == run_.steps || step * evaluations() / run_.steps != (step - 1) * evaluations() / run_.steps)
        evaluate();
      monitor_.show(name_, static_cast<double>(step) / static_cast<double>(run_.steps), curve_.points.back().held_out);
      if (seconds_now() - kept > checkpoint_interval) {
        keep();
        kept = seconds_now();
      }
    }
    finish();
  }

 private:
  static constexpr double checkpoint_interval = 30;  // seconds
  /// In the course of the run. Only the last one of a tuning run counts.
  Index evaluations() const { return run_.purpose == Purpose::tuning ? 10 : 100; }

  void begin() {
    if (std::filesystem::exists(checkpoint_)) {
      const auto info = moe_mamba::load_checkpoint(checkpoint_, trainer_);
      windows_.restore(info.windows);
      curve_ = Curve::from_csv(info.metadata.at("paper.curve"));
      seconds_ = std::strtod(info.metadata.at("paper.seconds").c_str(), nullptr);
      loss_sum_ = std::strtod(info.metadata.at("paper.loss_sum").c_str(), nullptr);
      losses_ = std::strtoll(info.metadata.at("paper.losses").c_str(), nullptr, 10);
      return;
    }
    curve_.facts = {
        {"system", system_},
        {"definition", moe_mamba::spelling<Definition>()},
        {"active parameters", std::to_string(moe_mamba::cost<Definition>.active_parameters)},
        {"parameters", std::to_string(moe_mamba::cost<Definition>.parameters)},
        {"training FLOPs per step", support::format("%.0f", moe_mamba::cost<Definition>.training_flops_per_token *
                                                                static_cast<double>(recipe_.tokens()))},
        {"text", support::format("%016llx", static_cast<unsigned long long>(corpus_.fingerprint))},
        {"recipe", recipe_.text()},
        {"steps", std::to_string(run_.steps)},
        {"learning rate", support::format("%g", run_.rate)},
        {"seed", std::to_string(run_.seed)}};
    evaluate();
  }

  void evaluate() {
    Point point{.step = trainer_.steps(),
                .seconds = seconds_,
                .training_loss = losses_ > 0 ? loss_sum_ / static_cast<double>(losses_) : 0,
                .held_out = evaluation_.loss()};
    const bool tenth = curve_.points.size() % 10 == 0 || trainer_.steps() == run_.steps;
    if (run_.purpose == Purpose::result && tenth) point.accuracy = evaluation_.accuracy();
    curve_.points.push_back(point);
    loss_sum_ = 0;
    losses_ = 0;
  }

  void keep() {
    moe_mamba::save_checkpoint(checkpoint_, trainer_, windows_.state(),
                               {{"paper.curve", curve_.to_csv()},
                                {"paper.seconds", support::format("%.6f", seconds_)},
                                {"paper.loss_sum", support::format("%a", loss_sum_)},
                                {"paper.losses", std::to_string(losses_)}});
  }

  void finish() {
    if (run_.purpose == Purpose::result) {
      const std::string choices = specialisation<Definition, S>(model_, device_, corpus_.held_out);
      if (!choices.empty()) write_text(folder_ / (name_ + ".experts.csv"), choices);
    }
    write_text(folder_ / (name_ + ".csv"), curve_.to_csv());
    std::error_code ignored;
    std::filesystem::remove(checkpoint_, ignored);
  }

  const Run& run_;
  const Corpus& corpus_;
  const Recipe& recipe_;
  Monitor& monitor_;
  std::string system_, name_;
  std::filesystem::path folder_, checkpoint_;
  Backend& device_;
  moe_mamba::Model<Definition, S, Backend> model_;
  moe_mamba::Trainer<Definition, S, Backend, moe_mamba::Cosine> trainer_;
  moe_mamba::Windows<unsigned char> windows_;
  Evaluation<Definition, S, Backend> evaluation_;
  Curve curve_;
  double seconds_ = 0, loss_sum_ = 0;
  Index losses_ = 0;  // in loss_sum_
};

/// A system that trains on a device of its own, made by `make_device()`.
template <class Definition, class S, class MakeDevice>
System system_of(std::string key, std::string name, MakeDevice make_device) {
  System system{key, std::move(name), moe_mamba::spelling<Definition>(), moe_mamba::cost<Definition, S>, {}};
  system.train = [key, make_device](const Run& run, const Recipe& recipe, const Corpus& corpus,
                                    const std::filesystem::path& folder, Monitor& monitor) {
    auto device = make_device();
    Training<Definition, S, decltype(device)>(device, key, run, recipe, corpus, folder, monitor).go();
  };
  return system;
}

}  // namespace paper
