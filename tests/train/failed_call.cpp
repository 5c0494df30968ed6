// A call on a trainer that throws: in the middle of a batch, in the schedule, or at the wrong time.
#include <algorithm>
#include <cmath>
#include <concepts>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "moe_mamba/kernels.hpp"
#include "moe_mamba/language/language_model.hpp"
#include "moe_mamba/language/mamba.hpp"
#include "moe_mamba/language/mlp.hpp"
#include "moe_mamba/train/trainer.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;

namespace {

/// How often the activation may still be called before it throws; negative: it never throws.
long calls_until_failure = -1;

/// A user-defined activation that throws.
struct Fragile {
  static constexpr bool gated = false;
  static void count() {
    if (calls_until_failure >= 0 && calls_until_failure-- == 0) throw std::runtime_error("fragile");
  }
  template <class T>
  static T value(T x) {
    count();
    return std::tanh(x);
  }
  template <class T>
  static T derivative(T x) {
    count();
    return T(1) - std::tanh(x) * std::tanh(x);
  }
};

/// A schedule whose factor the test gives.
struct Given {
  const double* factor;
  void check() const {}
  double operator()(Index) const {
    if (*factor == 7) throw std::runtime_error("the schedule's own");
    return *factor;
  }
};

using Net = LanguageModel<Vocabulary<7>, Width<4>, Mamba<State<2>>, Mlp<Hidden<3>, Fragile>>;

const std::vector<Token> tokens{1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5};

TokenBatch batch(std::size_t first, Index length, bool continues = true) {
  const auto inputs = std::span(tokens).subspan(first, static_cast<std::size_t>(2 * length));
  return {inputs, inputs, {2, length}, continues};
}

struct Run {
  double factor = 1;
  Model<Net> model{Seed{1}};
  Trainer<Net, float, Cpu, Given> trainer{model, AdamW{}, Given{&factor}, TrainerOptions{.carry_states = true}};

  Run() { trainer.step(batch(0, 3, false)); }
};

/// All results of the run from here on.
std::vector<double> future(Run& run, bool continues = true) {
  std::vector<double> numbers;
  for (const std::size_t first : {std::size_t{1}, std::size_t{2}}) {
    const StepReport report = run.trainer.step(batch(first, 3, continues));
    continues = true;
    numbers.insert(numbers.end(),
                   {report.loss, report.gradient_norm, double(report.targets), double(run.trainer.steps())});
  }
  for (const float parameter : run.model.parameters()) numbers.push_back(double(parameter));
  return numbers;
}

}  // namespace

TEST_CASE("a batch during which any operation throws is discarded", "[train]") {
  for (const bool accumulated : {false, true}) {
    for (const bool masked : {false, true}) {
      Run other;
      const auto expected = future(other, false);  // without the batch, and with states from zero
      const std::vector<Token> nothing(6, masked_target);
      long failures = 0;
      for (long n = 0;; ++n) {
        Run run;
        if (accumulated) run.trainer.accumulate(batch(3, 2));
        auto failing = batch(5, 3);
        if (masked) failing.targets = nothing;
        calls_until_failure = n;
        bool failed = false;
        try {
          n % 2 == 0 ? void(run.trainer.step(failing)) : void(run.trainer.accumulate(failing));
        } catch (const std::runtime_error&) {
          failed = true;
        }
        calls_until_failure = -1;
        if (!failed) break;
        ++failures;
        REQUIRE(run.trainer.targets() == 0);
        REQUIRE_THROWS_AS(run.trainer.update(), OrderError);
        REQUIRE(future(run) == expected);
      }
      CHECK(failures >= (masked ? 18 : 36));  // in the forward pass and the backward pass
    }
  }
}

TEST_CASE("a batch that is refused leaves what was accumulated", "[train]") {
  Run run, undisturbed;
  for (Run* const each : {&run, &undisturbed}) each->trainer.accumulate(batch(3, 2));
  const std::vector<Token> outside{1, 99};
  CHECK_THROWS_AS(run.trainer.step(TokenBatch{outside, outside, {2, 1}, true}), std::out_of_range);
  CHECK_THROWS_AS(run.trainer.accumulate(TokenBatch{outside, outside, {1, 2}, true}), std::out_of_range);
  for (Run* const each : {&run, &undisturbed}) each->trainer.update();
  CHECK(future(run) == future(undisturbed));
}

TEST_CASE("a schedule that throws or gives no factor is refused with nothing changed", "[train]") {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double factor : {std::nan(""), infinity, -infinity, -1e-300, 1.5, 1e300, 7.0}) {
    Run run, undisturbed;
    for (Run* const each : {&run, &undisturbed}) each->trainer.accumulate(batch(3, 2));
    run.factor = factor;
    const std::string message = factor == 7.0 ? "the schedule's own" : "the schedule's factor of step 1 is ";
    CHECK_THROWS_WITH(run.trainer.step(batch(5, 3)), test::Contains(message));
    CHECK_THROWS_WITH(run.trainer.update(), test::Contains(message));
    run.factor = 1;
    for (Run* const each : {&run, &undisturbed}) each->trainer.update();
    CHECK(future(run) == future(undisturbed));
  }
  Run run;
  const std::vector<float> before(run.model.parameters().begin(), run.model.parameters().end());
  run.factor = 1.5;
  CHECK_THROWS_WITH(run.trainer.step(batch(5, 3)), "the schedule's factor of step 1 is 1.5; allowed: 0 to 1");
  run.factor = 0;  // still an update
  CHECK(run.trainer.step(batch(5, 3)).applied);
  CHECK(std::vector<float>(run.model.parameters().begin(), run.model.parameters().end()) == before);
}

TEST_CASE("others' targets are counted on a gradient's sum only", "[train]") {
  Run run;
  const Losses losses{.prediction = 1, .targets = 5};
  const auto refused = [&] {
    CHECK_THROWS_WITH(run.trainer.count_others(losses),
                      test::Contains("allowed: after accumulate() and then make_gradient_sum()"));
    CHECK_THROWS_AS(run.trainer.count_others(losses), OrderError);
  };
  run.trainer.accumulate(batch(0, 3));
  refused();
  CHECK(run.trainer.targets() == 6);
  run.trainer.make_gradient_sum();
  run.trainer.count_others(losses);
  run.trainer.count_others(losses);  // of a third rank
  CHECK(run.trainer.targets() == 16);
  CHECK(run.trainer.gradient_scale() == 1.0 / 16);
  run.trainer.accumulate(batch(0, 2));
  refused();
  run.trainer.make_gradient_sum();
  run.trainer.count_others(losses);
  CHECK(run.trainer.targets() == 25);
  run.trainer.discard();
  run.trainer.accumulate(batch(0, 1));
  refused();
}

TEMPLATE_TEST_CASE("options that a type cannot represent are refused, and accepted ones keep parameters finite",
                   "[train]", float, double) {
  using S = TestType;
  Model<Net, S> model(Seed{1});
  const auto inputs = std::span(tokens).first(6);
  int taken = 0;
  const auto check = [&](const AdamW& optimizer, const std::string& name) {
    INFO(name << ": " << optimizer.learning_rate << ", " << optimizer.epsilon << ", " << optimizer.weight_decay);
    const std::vector<S> before(model.parameters().begin(), model.parameters().end());
    try {
      Trainer trainer(model, optimizer);
      for (int step = 0; step < 2; ++step) trainer.step(TokenBatch{inputs, inputs, {2, 3}});
      ++taken;
    } catch (const std::invalid_argument& error) {
      CHECK_THAT(error.what(), test::Contains(name + " is "));
      CHECK(std::equal(before.begin(), before.end(), model.parameters().begin()));
    }
    bool finite = true;
    for (const S parameter : model.parameters()) finite = finite && std::isfinite(parameter);
    REQUIRE(finite);
    std::copy(before.begin(), before.end(), model.parameters().begin());
  };
  constexpr int most = std::numeric_limits<double>::max_exponent10;
  for (int exponent = -most; exponent <= most; exponent += 7) {
    const double value = std::pow(10.0, exponent);
    check({.epsilon = value}, "epsilon");
    check({.weight_decay = value}, "weight_decay");
    if (exponent <= std::numeric_limits<S>::max_exponent10 - 2 || exponent > std::numeric_limits<S>::max_exponent10)
      check({.learning_rate = value, .weight_decay = 0}, "learning_rate");
  }
  CHECK(taken > (std::same_as<S, float> ? 30 : 200));
}

TEST_CASE("options that float cannot represent are refused with a message", "[train]") {
  Model<Net> model(Seed{1});
  const std::string allowed = "; allowed: 1.1754944e-38 to 3.4028235e+38, as updates are computed in float";
  CHECK_THROWS_WITH(Trainer(model, AdamW{.epsilon = 1e-46}), "epsilon is 1e-46" + allowed);
  CHECK_THROWS_WITH(Trainer(model, AdamW{.learning_rate = 1e39}), "learning_rate is 1e+39" + allowed);
  CHECK_THROWS_WITH(
      Trainer(model, AdamW{.weight_decay = 1e60}),
      "weight_decay is 1e+60; allowed: 0 to 1000, 1 / learning_rate: more would change parameters' signs");
  Model<Net, double> doubles(Seed{1});
  CHECK_NOTHROW(Trainer(doubles, AdamW{.learning_rate = 1e39, .epsilon = 1e-46, .weight_decay = 0}));
  CHECK_THROWS_WITH(Trainer(doubles, AdamW{.epsilon = std::nan("")}), test::Contains("epsilon is nan"));
}
