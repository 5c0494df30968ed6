#pragma once

#include <algorithm>
#include <atomic>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "moe_mamba/moe_mamba.hpp"
#include "recipe.hpp"
#include "results.hpp"
#include "tasks.hpp"

/// Training and testing a system on a task.
namespace mechanism {

/// How far a run has come, for other threads to see.
struct RunProgress {
  std::atomic<Index> step = 0, work = 0;
  std::atomic<double> loss = 0;  ///< running mean, in nats per answer
};

/// Work of a training step and of a test of as many tokens, in the same unit.
inline constexpr Index training_work = 3, test_work = 1;

namespace detail {

/// The random numbers of examples, apart from each other's and from those of the initial parameters.
inline Random training_examples(Task task, std::uint64_t seed) {
  return Random(Seed{seed}, (std::uint64_t{1} << 40) + static_cast<std::uint64_t>(task));
}
inline Random test_examples(Task task, std::uint64_t seed, Index length) {
  return Random(Seed{seed},
                (std::uint64_t{2} << 40) + 2 * static_cast<std::uint64_t>(length) + static_cast<std::uint64_t>(task));
}

/// How many answers are right.
struct Score {
  Index right = 0, answers = 0;

  void add(const Examples& examples, std::span<const float> logits) {
    for (std::size_t i = 0; i < examples.targets.size(); ++i) {
      if (examples.targets[i] == masked_target) continue;
      const auto* of = logits.data() + i * static_cast<std::size_t>(vocabulary);
      right += std::max_element(of, of + vocabulary) - of == examples.targets[i];
      ++answers;
    }
  }
  double accuracy() const { return static_cast<double>(right) / static_cast<double>(answers); }
};

}  // namespace detail

/// Examples that a system is tested on at a length: fewer where attention, whose cost grows with the square, would take longer
/// than everything else together.
template <class System>
Index tests_of(const Recipe& recipe, Index length) {
  return System::attention && length > 2048 ? recipe.tests / 4 : recipe.tests;
}

/// The share of right answers over `count` new examples of a length.
template <class Definition>
double accuracy(const Model<Definition>& model, Cpu& device, Task task, const Recipe& recipe, std::uint64_t seed,
                Index length, Index count, const std::atomic<bool>& interrupted) {
  constexpr Index tokens_at_once = 4096;
  Random random = detail::test_examples(task, seed, length);
  Workspace<Definition> workspace(
      device, shape_of(task, length, recipe.items, std::clamp<Index>(tokens_at_once / length, 1, count)));
  Examples examples;
  std::vector<float> logits;
  detail::Score score;
  for (Index done = 0; done < count && !interrupted;) {
    const Index some = std::min(workspace.largest().batch, count - done);
    generate(task, random, length, recipe.items, some, examples);
    logits.resize(examples.inputs.size() * static_cast<std::size_t>(vocabulary));
    model.forward(workspace, examples.inputs, examples.shape, logits);
    score.add(examples, logits);
    done += some;
  }
  return score.accuracy();
}

/// The tests of a run, without their results.
template <class System>
std::vector<Row> rows_of(Task task, const Recipe& recipe, std::uint64_t seed) {
  std::vector<Row> rows;
  for (Index length = recipe.shortest_test; length <= std::min(recipe.longest_test, System::longest); length *= 2) {
    rows.push_back({task, System::name, cost<typename System::Net>.active_parameters, recipe.length, recipe.steps, seed,
                    length, 0, tests_of<System>(recipe, length)});
  }
  return rows;
}

/// The whole work of a run with these tests.
inline Index work_of(const Recipe& recipe, std::span<const Row> rows) {
  Index work = training_work * recipe.steps * recipe.tokens;
  for (const Row& row : rows) work += test_work * row.examples * row.test_length;
  return work;
}

/// Trains a system, and tests it for the rows' accuracies. On one thread, and the same bits wherever it runs. Returns at once
/// when interrupted. Throws std::runtime_error if a gradient is not finite.
template <class System>
void train_and_test(Task task, const Recipe& recipe, std::uint64_t seed, std::vector<Row>& rows, RunProgress& progress,
                    const std::atomic<bool>& interrupted) {
  Cpu device(Threads{1});
  Model<typename System::Net> model(Seed{seed});
  Trainer trainer(model, device,
                  AdamW{.learning_rate = System::attention ? recipe.attention_learning_rate : recipe.learning_rate,
                        .weight_decay = recipe.weight_decay},
                  Cosine{.warmup = recipe.warmup, .steps = recipe.steps, .floor = recipe.floor});
  Random random = detail::training_examples(task, seed);
  Examples examples;
  while (trainer.steps() < recipe.steps) {
    if (interrupted) return;
    const Index length = recipe.training_length(random);
    generate(task, random, length, recipe.items, recipe.tokens / length, examples);
    const StepReport report = trainer.step(examples.batch());
    if (!report.applied) {
      throw std::runtime_error(std::string(System::name) + ": the gradient of a step is not finite");
    }
    const double mean = progress.loss;
    progress.loss = trainer.steps() == 1 ? report.loss : mean + 0.02 * (report.loss - mean);
    progress.step = trainer.steps();
    progress.work += training_work * recipe.tokens;
  }
  for (Row& row : rows) {
    row.accuracy = accuracy(model, device, task, recipe, seed, row.test_length, row.examples, interrupted);
    if (interrupted) return;
    progress.work += test_work * row.examples * row.test_length;
  }
}

}  // namespace mechanism
