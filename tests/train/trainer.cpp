// Training: updates according to the formulas, on any number of threads, without allocations, with NaN reported.
#include "moe_mamba/train/trainer.hpp"

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "model/passes.hpp"
#include "moe_mamba/train/windows.hpp"
#include "support/allocations.hpp"
#include "support/backend.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

using namespace moe_mamba;

namespace {

using Net = test::TrainedNet;
using test::OddNet;

/// A text that repeats itself, with a little noise.
std::vector<unsigned char> pattern(Index size) {
  std::vector<unsigned char> text(static_cast<std::size_t>(size));
  for (Index i = 0; i < size; ++i) text[static_cast<std::size_t>(i)] = static_cast<unsigned char>((i * i + i / 7) % 11);
  return text;
}

template <class S>
std::vector<S> parameters_after(int steps, int threads, TrainerOptions options = {}) {
  const auto text = pattern(3000);
  auto batches = windows(text, Length{13}, Batch{3}, Seed{5});
  test::ModelOf<Net, S> model(Seed{1});
  auto device = test::open(threads);
  Trainer trainer(model, device, AdamW{.learning_rate = 1e-2}, Cosine{.warmup = 2, .steps = 20}, options);
  for (int i = 0; i < steps; ++i) trainer.step(batches.next());
  return test::numbers(model);
}

/// Trains with the trainer and with a plain loop in double.
template <class Definition>
void check_updates(Decay decay) {
  const auto text = pattern(3000);
  const AdamW optimizer{
      .learning_rate = 3e-3, .beta1 = 0.8, .beta2 = 0.9, .epsilon = 1e-6, .weight_decay = 0.3, .decay = decay};
  const Cosine rate{.warmup = 2, .steps = 6, .floor = 0.2};
  const double clip = 0.7;
  auto batches = windows(text, Length{9}, Batch{2}, Seed{5});
  test::ModelOf<Definition, double> model(Seed{1});
  Trainer trainer(model, optimizer, rate, TrainerOptions{.clip_norm = clip});

  test::ModelOf<Definition, double> naive(Seed{1});
  const auto list = parameter_list<Definition>();
  const auto size = static_cast<std::size_t>(Definition::parameters);
  std::vector<double> m(size), v(size), weights = test::numbers(naive);
  auto device = test::open();
  Workspace<Definition, double, test::Backend> workspace(device, {2, 9}, Purpose::training);
  for (int step = 0; step < 4; ++step) {
    const TokenBatch batch = batches.next();
    Array<double, test::Backend::Memory> sums(size);
    naive.write(weights);
    const Losses losses = naive.gradient(workspace, batch.inputs, batch.targets, batch.shape, sums);
    std::vector<double> gradient(size);
    sums.read(gradient);
    const StepReport report = trainer.step(batch);
    double norm = 0;
    for (const double g : gradient) norm += g * g;
    norm = std::sqrt(norm);
    for (const Parameter& parameter : list) {
      const bool is_decaying = decay == Decay::everything || parameter.kind == ParameterKind::matrix;
      const double weight_decay = is_decaying ? optimizer.weight_decay : 0.0;
      for (Index i = parameter.offset; i < parameter.offset + parameter.size(); ++i) {
        const auto at = static_cast<std::size_t>(i);
        const double g = gradient[at] * (norm > clip ? clip / norm : 1.0);
        m[at] = optimizer.beta1 * m[at] + (1 - optimizer.beta1) * g;
        v[at] = optimizer.beta2 * v[at] + (1 - optimizer.beta2) * g * g;
        const double mean = m[at] / (1 - std::pow(optimizer.beta1, step + 1));
        const double square = v[at] / (1 - std::pow(optimizer.beta2, step + 1));
        double& w = weights[at];
        w -= optimizer.learning_rate * rate(step) * (mean / (std::sqrt(square) + optimizer.epsilon) + weight_decay * w);
      }
    }
    CHECK(report.loss == Approx(losses.prediction).epsilon(1e-12));
    CHECK(report.gradient_norm == Approx(norm).epsilon(1e-10));
    CHECK(report.applied);
  }
  // Adam divides by the root of a square: rounding of the gradient's summation order is magnified where v is tiny.
  CHECK(test::relative_error(test::numbers(model), weights) < 1e-9);
}

}  // namespace

TEST_CASE("a small model learns a pattern", "[train]") {
  const auto text = pattern(5000);
  auto batches = windows(text, Length{32}, Batch{8}, Seed{5});
  test::ModelOf<Net> model(Seed{1});
  Trainer trainer(model, AdamW{.learning_rate = 1e-2}, Cosine{.warmup = 10, .steps = 200});
  const double first = trainer.step(batches.next()).loss;
  double last = 0;
  for (int i = 0; i < 199; ++i) last = trainer.step(batches.next()).loss;
  CHECK(first == Approx(std::log(11.0)).epsilon(0.05));
  CHECK(last < 0.5 * first);
  CHECK(trainer.steps() == 200);
}

TEST_CASE("a bfloat16 model learns too, and its parameters are trained floats, rounded", "[train]") {
  const auto text = pattern(5000);
  auto batches = windows(text, Length{32}, Batch{8}, Seed{5});
  test::ModelOf<Net, bfloat16> model(Seed{1});
  Trainer trainer(model, AdamW{.learning_rate = 1e-2}, Cosine{.warmup = 10, .steps = 150});
  const auto remainders = [&] {
    const auto remainder = trainer.progress().remainder;
    return std::vector<std::int16_t>(remainder.begin(), remainder.end());
  };
  CHECK(remainders() == std::vector<std::int16_t>(test::numbers(model).size(), 0));
  const double first = trainer.step(batches.next()).loss;
  double last = 0;
  for (int i = 0; i < 149; ++i) last = trainer.step(batches.next()).loss;
  CHECK(last < 0.6 * first);
  const auto stored = test::numbers(model);
  const auto remainder = remainders();
  REQUIRE(remainder.size() == stored.size());
  std::size_t wrong = 0, used = 0;
  for (std::size_t i = 0; i < stored.size(); ++i) {
    const SplitFloat halves = split_float(join_float({stored[i], remainder[i]}));
    wrong += halves.upper.bits != stored[i].bits || halves.remainder != remainder[i];
    used += remainder[i] != 0;
  }
  CHECK(wrong == 0);
  CHECK(used > stored.size() / 2);
}

TEST_CASE("a trainer continues from parameters written after its construction, to half a unit in the last place",
          "[train]") {
  const auto text = pattern(3000);
  auto batches = windows(text, Length{13}, Batch{3}, Seed{5});
  test::ModelOf<Net, bfloat16> model(Seed{1});
  const test::ModelOf<Net, bfloat16> other(Seed{2});
  Trainer trainer(model, AdamW{.learning_rate = 1e-6});
  trainer.step(batches.next());
  model.write(test::numbers(other));
  trainer.step(batches.next());
  const auto now = test::numbers(model);
  const auto written = test::converted<double>(test::numbers(other));
  const auto remainder = trainer.progress().remainder;
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < now.size(); ++i) {
    const auto weight = static_cast<double>(join_float({now[i], remainder[i]}));
    // Half a unit of eight bits, and a step of some learning rates.
    wrong += !(std::abs(weight - written[i]) <= std::abs(written[i]) / 256 + 1e-5);
  }
  CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("updates are those of a plain loop in double", "[train]", Net, OddNet) {
  check_updates<TestType>(Decay::matrices);
}

TEMPLATE_TEST_CASE("weight decay may apply to everything: A_log, D, gains and biases too", "[train]", Net, OddNet) {
  check_updates<TestType>(Decay::everything);
}

TEST_CASE("training gives the same bits on 1, 2 and 3 threads", "[train]") {
  const auto one = parameters_after<float>(5, 1);
  CHECK(one == parameters_after<float>(5, 2));
  CHECK(one == parameters_after<float>(5, 3));
}

TEST_CASE("memory taken beforehand or in the first step makes no difference", "[train]") {
  CHECK(parameters_after<float>(3, 1) == parameters_after<float>(3, 1, {.largest = {4, 20}}));
}

TEST_CASE("accumulated batches count as one", "[train]") {
  const auto text = pattern(3000);
  auto batches = windows(text, Length{10}, Batch{4}, Seed{5});
  const TokenBatch whole = batches.next();
  // No balance loss: its gradient is that of a product of means, which is not additive.
  using Plain = test::UnbalancedNet;
  test::ModelOf<Plain, double> once(Seed{1}), twice(Seed{1});
  Trainer a(once, AdamW{}, Constant{}, TrainerOptions{.clip_norm = 0}), b(twice, AdamW{}, Constant{}, {.clip_norm = 0});
  const StepReport report = a.step(whole);
  for (int half = 0; half < 2; ++half) {
    b.accumulate(TokenBatch{whole.inputs.subspan(static_cast<std::size_t>(half) * 20, 20),
                            whole.targets.subspan(static_cast<std::size_t>(half) * 20, 20),
                            {2, 10}});
  }
  const StepReport halves = b.update();
  CHECK(halves.loss == Approx(report.loss).epsilon(1e-12));
  CHECK(halves.gradient_norm == Approx(report.gradient_norm).epsilon(1e-10));
  CHECK(halves.targets == report.targets);
}

TEST_CASE("a NaN is reported and changes no parameter", "[train]") {
  const auto text = pattern(3000);
  auto batches = windows(text, Length{10}, Batch{2}, Seed{5});
  test::ModelOf<Net> model(Seed{1});
  auto before = test::numbers(model);
  for (const Parameter& parameter : parameter_list<Net>()) {
    if (parameter.name.view() != "layers.0.mixer.D") continue;
    std::fill_n(before.begin() + parameter.offset, parameter.size(), std::nanf(""));
  }
  model.write(before);
  Trainer trainer(model);
  const StepReport report = trainer.step(batches.next());
  CHECK(std::isnan(report.loss));
  CHECK_FALSE(report.applied);
  CHECK(trainer.steps() == 0);
  const auto after = test::numbers(model);
  CHECK(std::equal(before.begin(), before.end(), after.begin(), [](float a, float b) {
    return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
  }));
}

TEST_CASE("carried states do not keep a NaN beyond the step that was not applied", "[train]") {
  using Filter = test::FilterNet;
  test::ModelOf<Filter, double> model(Seed{1});
  Trainer trainer(model, AdamW{}, Constant{}, TrainerOptions{.carry_states = true});
  const auto good = test::uniform<double>(2 * 9, 1);
  CHECK(trainer.step(SeriesBatch<double>{good, good, {2, 9}}).applied);
  const auto kept = test::numbers(model);
  model.write(std::vector<double>(kept.size(), std::nan("")));
  CHECK_FALSE(trainer.step(SeriesBatch<double>{good, good, {2, 9}, true}).applied);
  model.write(kept);
  CHECK(trainer.step(SeriesBatch<double>{good, good, {2, 9}, true}).applied);
}

TEST_CASE("a number of a batch that is not finite is named, and nothing is changed", "[train]") {
  using Filter = test::FilterNet;
  test::ModelOf<Filter, double> model(Seed{1}), twin(Seed{1});
  Trainer trainer(model, AdamW{}, Constant{}, TrainerOptions{.carry_states = true}),
      other(twin, AdamW{}, Constant{}, TrainerOptions{.carry_states = true});
  const auto good = test::uniform<double>(2 * 9, 1);
  const SeriesBatch<double> batch{good, good, {2, 9}, true};
  for (const double value : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
    trainer.accumulate(batch);
    other.accumulate(batch);
    auto bad = good;
    bad[13] = value;
    const SeriesBatch<double> inputs{bad, good, {2, 9}, true}, targets{good, bad, {2, 9}, true};
    CHECK_THROWS_WITH(trainer.step(inputs), test::Contains("inputs[13] is ") && test::Contains("finite numbers"));
    CHECK_THROWS_WITH(trainer.accumulate(targets), test::Contains("targets[13] is "));
    CHECK_THROWS_WITH(trainer.evaluate(inputs), test::Contains("inputs[13] is "));
    CHECK(trainer.step(batch).loss == other.step(batch).loss);
  }
  CHECK(test::numbers(model) == test::numbers(twin));
}

TEMPLATE_TEST_CASE("a step on reserved memory allocates nothing", "[train]", float, double, bfloat16) {
  const auto text = pattern(3000);
  for (const bool carried : {false, true}) {
    for (const int threads : {1, 2}) {
      auto batches = sequential_windows(text, Length{70}, Batch{2});
      test::ModelOf<Net, TestType> model(Seed{1});
      auto device = test::open(threads);
      Trainer trainer(model, device, AdamW{}, Constant{}, TrainerOptions{.largest = {2, 70}, .carry_states = carried});
      const test::AllocationCounter counter;
      for (int i = 0; i < 3; ++i) trainer.step(batches.next());
      trainer.evaluate(batches.next());
      CHECK(counter.count() == 0);
    }
  }
}

TEST_CASE("carried states allocate only if there are more sequences than before", "[train]") {
  const auto text = pattern(3000);
  auto two = sequential_windows(text, Length{9}, Batch{2});
  auto three = sequential_windows(text, Length{9}, Batch{3});
  test::ModelOf<Net, float> model(Seed{1});
  auto device = test::open(1);
  Trainer trainer(model, device, AdamW{}, Constant{}, TrainerOptions{.largest = {3, 9}, .carry_states = true});
  const auto allocates = [&](TokenBatch batch, bool continues) {
    batch.continues = continues;
    const test::AllocationCounter counter;
    trainer.step(batch);
    return counter.count() > 0;
  };
  allocates(two.next(), false);
  CHECK(!allocates(two.next(), true));
  CHECK(!allocates(two.next(), false));
  CHECK(!allocates(three.next(), false));
  CHECK(!allocates(three.next(), true));
  CHECK(!allocates(two.next(), false));
  // Packed sequences may be more than `largest` has. (Of a device, what is taken of the host's memory for lengths
  // counts.)
  const std::vector<Token> tokens(text.begin(), text.begin() + 10);
  const std::vector<Index> four{3, 1, 2, 3}, five{2, 1, 2, 3, 1};
  const auto packed = [&](const std::vector<Index>& lengths) {
    return TokenBatch{std::span(tokens).first(9), std::span(tokens).subspan(1), Shape::packed(lengths)};
  };
  CHECK(allocates(packed(four), false));
  CHECK(!allocates(packed(four), true));
  CHECK(!allocates(three.next(), false));
  CHECK(!allocates(packed(four), false));
  CHECK(allocates(packed(five), false));
}

TEST_CASE("carried states continue from the end of the previous batch", "[train]") {
  const auto text = pattern(200);
  auto batches = sequential_windows(text, Length{9}, Batch{2});
  test::ModelOf<Net, double> model(Seed{1}), frozen(Seed{1});
  Trainer trainer(model, AdamW{}, Constant{}, TrainerOptions{.carry_states = true});
  auto device = test::open();
  Workspace<Net, double, test::Backend> workspace(device, {2, 9});
  States<Net, double, test::Backend::Memory> states(2);
  for (int i = 0; i < 3; ++i) {
    const TokenBatch batch = batches.next();
    const double expected = frozen.loss(workspace, batch.inputs, batch.targets, batch.shape, &states).prediction;
    CHECK(trainer.accumulate(batch).prediction == Approx(expected).epsilon(1e-12));
  }
}

TEST_CASE("a batch that continues another has as many sequences, one that does not may have any number", "[train]") {
  const auto text = pattern(200);
  auto two = sequential_windows(text, Length{9}, Batch{2});
  auto three = sequential_windows(text, Length{9}, Batch{3});
  for (const Shape largest : {Shape{}, Shape{3, 9}}) {
    test::ModelOf<Net> model(Seed{1});
    Trainer trainer(model, AdamW{}, Constant{}, TrainerOptions{.largest = largest, .carry_states = true});
    TokenBatch batch = two.next();
    trainer.step(batch);
    batch = three.next();
    batch.continues = true;
    CHECK_THROWS_WITH(trainer.step(batch), test::Contains("shape.batch is 3; allowed: 2"));
    batch.continues = false;
    CHECK(trainer.step(batch).applied);
    batch.continues = true;
    CHECK(trainer.step(batch).applied);
    trainer.evaluate(two.next());
    CHECK(trainer.step(batch).applied);
  }
}

TEST_CASE("batches larger than what was reserved are refused, and no memory is taken for malformed ones", "[train]") {
  const std::vector<Token> tokens(18, 0);
  test::ModelOf<Net> model(Seed{1});
  Trainer fixed(model, AdamW{}, Constant{}, TrainerOptions{.largest = {2, 8}}), open(model);
  using test::Contains;
  CHECK_THROWS_WITH(fixed.step(TokenBatch{tokens, tokens, {2, 9}}), Contains("shape.length is 9; allowed: 0 to 8"));
  CHECK_THROWS_WITH(fixed.evaluate(TokenBatch{tokens, tokens, {3, 6}}), Contains("shape.batch is 3; allowed: 0 to 2"));
  CHECK_THROWS_WITH(open.step(TokenBatch{tokens, tokens, {Index{1} << 39, 2}}), Contains("inputs.size() is 18"));
  CHECK_THROWS_WITH(open.step(TokenBatch{tokens, tokens, {Index{1} << 62, 8}}), Contains("shape.tokens()"));
  CHECK_THROWS_WITH(open.step(TokenBatch{{}, {}, {-1, 9}}), Contains("shape.batch is -1"));
}

TEST_CASE("a sequence model learns a leaky sum", "[train]") {
  using Filter = test::FilterNet;
  test::ModelOf<Filter, double> model(Seed{1});
  Trainer trainer(model, AdamW{.learning_rate = 2e-2, .weight_decay = 0}, Cosine{.warmup = 10, .steps = 200});
  double first = 0, last = 0;
  for (int step = 0; step < 200; ++step) {
    const auto inputs = test::uniform<double>(4 * 30, static_cast<std::uint64_t>(step));
    std::vector<double> targets(inputs.size());
    for (std::size_t row = 0; row < 4; ++row) {
      double sum = 0;
      for (std::size_t t = row * 30; t < (row + 1) * 30; ++t) targets[t] = sum = 0.8 * sum + 0.5 * inputs[t];
    }
    last = trainer.step(SeriesBatch<double>{inputs, targets, {4, 30}}).loss;
    if (step == 0) first = last;
  }
  CHECK(last < 0.1 * first);
}

TEST_CASE("options out of range are refused by name", "[train]") {
  test::ModelOf<Net> model(Seed{1});
  using test::Contains;
  CHECK_THROWS_WITH(Trainer(model, AdamW{.learning_rate = -1}), Contains("learning_rate is -1"));
  CHECK_THROWS_WITH(Trainer(model, AdamW{.beta2 = 1}), Contains("beta2 is 1"));
  CHECK_THROWS_WITH(Trainer(model, AdamW{}, Cosine{.steps = 0}), Contains("steps is 0"));
  CHECK_THROWS_WITH(Trainer(model, AdamW{}, Constant{}, TrainerOptions{.clip_norm = -1}), Contains("clip_norm is -1"));
  const auto largest = [&](Shape shape) { Trainer(model, AdamW{}, Constant{}, TrainerOptions{.largest = shape}); };
  CHECK_THROWS_WITH(largest({-5, -5}), "largest.batch is -5; allowed: 0 or more");
  CHECK_THROWS_WITH(largest({-1, 2}), "largest.batch is -1; allowed: 0 or more");
  CHECK_THROWS_WITH(largest({2, -1}), "largest.length is -1; allowed: 0 or more");
  CHECK_THROWS_WITH(largest({4, 0}), "largest.length is 0; allowed: 1 or more, as largest.batch is");
  CHECK_THROWS_WITH(largest({0, 10}), "largest.batch is 0; allowed: 1 or more, as largest.length is");
  Trainer trainer(model);
  CHECK_THROWS_AS(trainer.update(), std::logic_error);
}

TEST_CASE("a refused batch leaves the trainer as it was", "[train]") {
  const auto text = pattern(300);
  auto batches = sequential_windows(text, Length{9}, Batch{2});
  test::ModelOf<Net> model(Seed{1}), twin(Seed{1});
  Trainer trainer(model, AdamW{}, Constant{}, TrainerOptions{.carry_states = true}),
      other(twin, AdamW{}, Constant{}, TrainerOptions{.carry_states = true});
  trainer.step(batches.next());
  batches.restore({0, 0});
  other.step(batches.next());
  std::vector<Token> bad(18, 0);
  bad[7] = 11;
  CHECK_THROWS_AS(trainer.step(TokenBatch{bad, bad, {2, 9}, false}), std::out_of_range);
  const TokenBatch batch = batches.next();
  CHECK(trainer.step(batch).loss == other.step(batch).loss);
}
