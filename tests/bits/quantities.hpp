#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#if defined(MOE_MAMBA_TEST_CUDA)
#include "moe_mamba/cuda.cuh"
#endif

#include "bits/hash.hpp"
#include "model/definitions.hpp"
#include "support/backend.hpp"
#include "support/data.hpp"

/// The results of a definition: passes and their gradients, training runs, generated tokens, each as a hash of its
/// exact bits.
namespace test::bits {

using namespace moe_mamba;

/// A hash and the name of what it is of.
struct Line {
  std::string quantity;
  std::uint64_t hash;
};

/// Losses and reports as numbers. Every update must have been applied.
inline void add_losses(Hash& hash, const Losses& losses) {
  hash.add(losses.prediction).add(losses.auxiliary).add(losses.targets);
}
inline void add_report(Hash& hash, const StepReport& report) {
  if (!report.applied) throw std::runtime_error("an update was not applied");
  hash.add(report.loss).add(report.auxiliary).add(report.gradient_norm).add(report.learning_rate);
  hash.add(report.targets).add(report.applied);
}
/// `from` is a workspace, trainer or decoder.
template <class From>
void add_routers(Hash& hash, const From& from) {
  from.visit_routers([&](const RouterReport& report) {
    hash.add(report.balance_loss).add(report.z_loss).add(report.entropy).add(report.dropped).add(report.load);
  });
}

template <class Definition, class S>
class Quantities {
 public:
  /// `shape` is that of most batches, of 17 steps or more.
  Quantities(Shape shape, int threads) : shape_(shape), threads_(threads) {}

  std::vector<Line> lines() {
    initial_values();
    forward_passes();
    packed_passes();
    gradients();
    packed_gradients();
    steps();
    accumulated_batches();
    carried_states();
    if constexpr (takes_tokens) {
      generation();
      scores();
    }
    return std::move(lines_);
  }

 private:
  using C = compute_t<S>;
  using DataType = Data<Definition, C>;
  using StatesType = moe_mamba::States<Definition, S>;
  static constexpr bool takes_tokens = DataType::takes_tokens;
  static constexpr Index input_width = takes_tokens ? 1 : Index{Definition::input_width};
  static constexpr Index count = Definition::parameters;

  void add(const std::string& quantity, const Hash& hash) { lines_.push_back({quantity, hash.value()}); }

  /// Throws std::runtime_error for non-finite numbers, whose bits say little. Adds nothing for no numbers.
  template <class T>
  void add(const std::string& quantity, const std::vector<T>& values) {
    for (const T& value : values) {
      if (!std::isfinite(static_cast<double>(value))) throw std::runtime_error(quantity + " are not finite");
    }
    if (!values.empty()) add(quantity, Hash().add(values));
  }

  Bench<Definition, S> bench(Backend& device, Purpose purpose) const {
    return Bench<Definition, S>(device, {8, std::max<Index>(shape_.length, 48)}, parameters<Definition>(), purpose);
  }

  /// The steps `first` to `first + count` of each sequence of `inputs`, (B, L, width).
  auto steps_of(const std::vector<typename DataType::Input>& inputs, Index first, Index length) const {
    std::vector<typename DataType::Input> steps;
    for (Index b = 0; b < shape_.batch; ++b) {
      const auto begin = inputs.begin() + (b * shape_.length + first) * input_width;
      steps.insert(steps.end(), begin, begin + length * input_width);
    }
    return steps;
  }

  /// A batch in which some targets do not count.
  static DataType masked(Shape shape, std::uint64_t seed) {
    auto batch = data<Definition, C>(shape, seed);
    if constexpr (takes_tokens) {
      for (std::size_t i = 0; i < batch.targets.size(); i += 3) batch.targets[i] = masked_target;
    }
    return batch;
  }

  void initial_values() { add("initial values", numbers(ModelOf<Definition, S>(Seed{1}))); }

  void forward_passes() {
    auto device = open(threads_);
    auto model = bench(device, Purpose::inference);
    const auto inputs = data<Definition, C>(shape_).inputs;
    StatesType whole(shape_.batch), chunks(shape_.batch);
    add("outputs", model.forward(inputs, shape_, &whole));
    Hash routers;
    add_routers(routers, model.workspace);
    add("routers' reports", routers);
    add("states", numbers(whole));

    Hash outputs;
    const Index lengths[] = {1, 13, shape_.length - 16, 2};
    Index first = 0;
    for (const Index length : lengths) {
      outputs.add(model.forward(steps_of(inputs, first, length), {shape_.batch, length}, &chunks));
      first += length;
    }
    add("outputs in chunks", outputs);
    add("states after chunks", numbers(chunks));

    Hash steps;
    for (Index step = 0; step < 3; ++step) steps.add(model.step(chunks, steps_of(inputs, step, 1)));
    add("outputs of steps", steps);
    add("states after steps", numbers(chunks));
    add("last outputs", model.forward_last(inputs, shape_));
  }

  void packed_passes() {
    auto device = open(threads_);
    auto model = bench(device, Purpose::inference);
    const Shape shape = Shape::packed(lengths), other = Shape::packed(other_lengths);
    StatesType states(shape.batch), other_states(other.batch);
    for (const auto seed : {std::uint64_t{1}, std::uint64_t{2}}) {  // from zero states, then from the final ones
      const auto outputs = model.forward(data<Definition, C>(shape, seed).inputs, shape, &states);
      add(seed == 1 ? "packed outputs" : "packed outputs from states", outputs);
    }
    add("packed states", numbers(states));
    add("packed last outputs", model.forward_last(data<Definition, C>(other, 3).inputs, other, &other_states));
  }

  void gradients() {
    auto device = open(threads_);
    auto model = bench(device, Purpose::training);
    const auto batch = data<Definition, C>(shape_), before = data<Definition, C>(shape_, 2);
    StatesType states(shape_.batch);
    (void)model.forward(before.inputs, shape_, &states);
    auto dstates = random_states<Definition, S>(shape_.batch);
    std::vector<C> sums(static_cast<std::size_t>(count));
    Hash losses;
    add_losses(losses, model.loss(batch));
    add_losses(losses, model.gradient(batch, sums, &states, &dstates));
    add("losses", losses);
    add("gradients", sums);
    add("gradients by states", numbers(dstates));
    add_losses(losses, model.gradient(before, sums));
    add("losses of two batches", losses);
    add("gradients of two batches", sums);

    const auto outputs = model.forward(batch.inputs, shape_, &states);
    std::vector<C> by_parameters(sums.size()), dinputs;
    if constexpr (!takes_tokens) dinputs = poison<C>(static_cast<Index>(batch.inputs.size()));
    model.backward(uniform<C>(shape_.tokens() * Definition::output_width, 5), by_parameters, dinputs, &dstates);
    add("recorded outputs", outputs);
    add("gradients by outputs", by_parameters);
    if constexpr (!takes_tokens) add("gradients by inputs", dinputs);
    add("gradients by states through outputs", numbers(dstates));
  }

  void packed_gradients() {
    auto device = open(threads_);
    auto model = bench(device, Purpose::training);
    const Shape shape = Shape::packed(lengths);
    StatesType states(shape.batch);
    auto dstates = random_states<Definition, S>(shape.batch, 3);
    std::vector<C> sums(static_cast<std::size_t>(count));
    Hash losses;
    add_losses(losses, model.gradient(masked(shape, 4), sums, &states, &dstates));
    add("packed losses", losses);
    add("packed gradients", sums);
    add("packed gradients by states", numbers(dstates));
  }

  /// Trains: `run(trainer, reports)` does the steps and appends their reports.
  template <class Rate, class Run>
  void train(const std::string& name, AdamW optimizer, Rate rate, TrainerOptions options, const Run& run) {
    ModelOf<Definition, S> model(Seed{1});
    auto device = open(threads_);
    Trainer trainer(model, device, optimizer, rate, options);
    Hash reports, moments;
    run(trainer, reports);
    add_routers(reports, trainer);
    const auto batch = masked(shape_, 77);
    using Batch = typename decltype(trainer)::BatchType;
    add_losses(reports, trainer.evaluate(Batch{batch.inputs, batch.targets, batch.shape}));
    const auto progress = trainer.progress();
    moments.add(progress.first_moment.span()).add(progress.second_moment.span()).add(progress.remainder.span());
    moments.add(progress.states.span());
    add(name + ": reports", reports);
    add(name + ": parameters", numbers(model));
    add(name + ": progress", moments);
  }

  /// Ten updates that clip and decay, with the routers' reports of each.
  void steps() {
    const AdamW optimizer{.learning_rate = 1e-2, .weight_decay = 0.2};
    train("ten updates", optimizer, Cosine{.warmup = 3, .steps = 9}, {.clip_norm = 0.5},
          [&](auto& trainer, Hash& reports) {
            using Batch = typename std::decay_t<decltype(trainer)>::BatchType;
            for (std::uint64_t step = 0; step < 10; ++step) {
              const auto batch = data<Definition, C>(shape_, step);
              add_report(reports, trainer.step(Batch{batch.inputs, batch.targets, batch.shape}));
              add_routers(reports, trainer);
            }
          });
  }

  /// Updates from packed batches that are accumulated, without clipping and decay.
  void accumulated_batches() {
    const AdamW optimizer{.learning_rate = 3e-3, .beta1 = 0.8, .beta2 = 0.99, .epsilon = 1e-6, .weight_decay = 0};
    train("accumulated batches", optimizer, Constant{.warmup = 2}, {.clip_norm = 0}, [&](auto& trainer, Hash& reports) {
      using Batch = typename std::decay_t<decltype(trainer)>::BatchType;
      for (std::uint64_t update = 0; update < 3; ++update) {
        for (const auto& some : {lengths, other_lengths, lengths}) {
          const auto batch = masked(Shape::packed(some), 10 * update + some.size());
          add_losses(reports, trainer.accumulate(Batch{batch.inputs, batch.targets, batch.shape}));
        }
        add_report(reports, trainer.update());
      }
    });
  }

  /// Updates whose running states are carried from batch to batch, and reset in the fourth.
  void carried_states() {
    train("carried states", AdamW{}, Constant{}, {.largest = shape_, .carry_states = true},
          [&](auto& trainer, Hash& reports) {
            using Batch = typename std::decay_t<decltype(trainer)>::BatchType;
            for (std::uint64_t step = 0; step < 6; ++step) {
              const auto batch = masked(shape_, step + 20);
              add_report(reports, trainer.step(Batch{batch.inputs, batch.targets, batch.shape, step != 3}));
            }
          });
  }

  void generation() {
    ModelOf<Definition, S> model(Uninitialised{});
    write(model);
    const auto prompt = data<Definition, C>({1, 21}, 6).inputs;
    auto device = open(threads_);
    Decoder decoder(model, device, DecoderOptions{.chunk = 16});
    const auto generate = [&](const char* name, Sampling sampling) {
      decoder.reset();
      std::vector<Token> tokens;
      for (const Token token : decoder.generate(prompt, sampling, Seed{7}, 24)) tokens.push_back(token);
      add(name, tokens);
    };
    generate("tokens, greedy", Greedy{});
    const auto logits = decoder.logits();
    add("logits after greedy tokens", std::vector<C>(logits.begin(), logits.end()));
    add("states after greedy tokens", numbers(decoder.state()));
    generate("tokens, nucleus", TopP{0.9f, 0.8f});
    generate("tokens, top-k", TopKSampling{3, 1.2f});
    generate("tokens, all", Temperature{1.1f});
  }

  void scores() {
    ModelOf<Definition, S> model(Uninitialised{});
    write(model);
    const auto text = data<Definition, C>({1, 40}, 8).inputs;
    auto device = open(threads_);
    Scorer scorer(model, device, ScorerOptions{.chunk = 16});
    Hash scores;
    for (const Score& score : {scorer.text(text), scorer.windows(text, 12, 5)}) {
      scores.add(score.log_likelihood).add(score.tokens).add(score.greedy);
    }
    add("scores", scores);
  }

  static void write(ModelOf<Definition, S>& model) { model.write(converted<S>(parameters<Definition>())); }

  const std::vector<Index> lengths{5, 1, 0, 33, 2, 16}, other_lengths{3, 1, 40, 7};
  Shape shape_;
  int threads_;
  std::vector<Line> lines_;
};

}  // namespace test::bits
