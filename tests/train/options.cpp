// Every number of the option structs, at the edges of its type: refused by name or accepted, without a floating-point
// trap.
#include <functional>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "moe_mamba/cpu/device.hpp"
#include "moe_mamba/generate/sampling.hpp"
#include "moe_mamba/model/workspace.hpp"
#include "moe_mamba/train/schedule.hpp"
#include "moe_mamba/train/trainer_options.hpp"
#include "support/catch.hpp"
#include "support/floating_point_traps.hpp"

using namespace moe_mamba;

namespace {

template <class Number>
std::vector<Number> edge_values() {
  using Limits = std::numeric_limits<Number>;
  if constexpr (std::floating_point<Number>) {
    return {Limits::quiet_NaN(), -Limits::quiet_NaN(), Limits::infinity(), -Limits::infinity(), Number(0),   -Number(0),
            Number(-1),          Limits::denorm_min(), Limits::min(),      Limits::epsilon(),   Number(0.5), Number(1),
            Limits::max(),       Limits::lowest()};
  } else {
    return {Limits::min(), Number(-1), Number(0), Number(1), Number(1024), Limits::max()};
  }
}

/// The message of the exception that `call` throws, if any; a trap terminates the program.
template <class Call>
std::optional<std::string> refusal(const Call& call) {
  const test::FloatingPointTraps traps;
  std::optional<std::string> message;
  try {
    call();
  } catch (const std::invalid_argument& error) {
    message = error.what();
  }
  CHECK_FALSE(traps.raised());
  return message;
}

/// Sets the option `number` to each of the edge values in turn, and checks the options.
template <class Number>
void try_values(const std::string& name, Number& number, const std::function<void()>& check,
                const std::function<bool(Number)>& allowed, const std::string& text) {
  const Number before = number;
  int refused = 0, taken = 0;
  for (const Number value : edge_values<Number>()) {
    INFO(error_text(name.c_str(), value, text));
    number = value;
    const auto message = refusal(check);
    CHECK(message.has_value() != allowed(value));
    if (message) CHECK_THAT(*message, Catch::Matchers::StartsWith(error_text(name.c_str(), value, text)));
    ++(message ? refused : taken);
  }
  CHECK(refused > 0);
  CHECK(taken > 0);
  number = before;
}

template <ComputeScalar C>
void try_adamw(const std::string& range) {
  using Limits = std::numeric_limits<C>;
  AdamW options;
  auto& [learning_rate, beta1, beta2, epsilon, weight_decay, decay] = options;  // all of them
  CHECK(decay == Decay::matrices);
  const std::function<void()> check = [&] { options.check<C>(); };
  const std::function<bool(double)> held = [](double x) { return x >= double{Limits::min()} && x <= Limits::max(); };
  const std::function<bool(double)> decays = [](double x) { return x >= 0 && x < 1; };
  weight_decay = 0;
  try_values("learning_rate", learning_rate, check, held, range);
  weight_decay = 0.1;
  try_values("beta1", beta1, check, decays, "0 <= beta1 < 1");
  try_values("beta2", beta2, check, decays, "0 <= beta2 < 1");
  try_values("epsilon", epsilon, check, held, range);
  try_values<double>(
      "weight_decay", weight_decay, check, [](double x) { return x >= 0 && x <= 1000; },
      "0 to 1000, 1 / learning_rate");
}

/// A schedule with a given factor.
struct Given {
  double factor;
  void check() const {}
  double operator()(Index) const { return factor; }
};

}  // namespace

TEST_CASE("AdamW refuses options out of range by name, without a trap", "[train]") {
  try_adamw<double>("2.2250738585072014e-308 to 1.7976931348623157e+308, as updates are computed in double");
  try_adamw<float>("1.1754944e-38 to 3.4028235e+38, as updates are computed in float");
}

TEST_CASE("Trainer options out of range are refused by name, without a trap", "[train]") {
  TrainerOptions options;
  auto& [largest, clip_norm, carry_states, selection_bias_rate] = options;
  static_cast<void>(carry_states);
  const std::function<void()> check = [&] { options.check(); };
  try_values<double>(
      "clip_norm", clip_norm, check, [](double x) { return x >= 0 && x < INFINITY; }, "a finite number >= 0");
  constexpr double most = std::numeric_limits<float>::max();
  try_values<double>(
      "selection_bias_rate", selection_bias_rate, check, [](double x) { return x >= 0 && x <= most; },
      "a number >= 0 in the range of float");
  largest = {.batch = 2, .length = 3};
  for (Index* number : {&largest.batch, &largest.length}) {
    const bool is_batch = number == &largest.batch;
    const Index before = *number;
    for (const Index value : edge_values<Index>()) {
      INFO((is_batch ? "batch " : "length ") << value);
      *number = value;
      const auto message = refusal(check);
      CHECK(message.has_value() == (value < 1));
      const std::string name = is_batch ? "largest.batch" : "largest.length";
      if (message)
        CHECK_THAT(*message, Catch::Matchers::StartsWith(name + " is " + std::to_string(value) + "; allowed"));
    }
    *number = before;
  }
}

TEST_CASE("Schedules refuse options out of range by name, without a trap", "[train]") {
  Constant constant;
  auto& [constant_warmup] = constant;
  try_values<Index>(
      "warmup", constant_warmup, [&] { constant.check(); }, [](Index x) { return x >= 0; }, "an integer >= 0");

  Cosine cosine{.warmup = 10, .steps = 2000};
  auto& [warmup, steps, floor] = cosine;
  const std::function<void()> check = [&] { cosine.check(); };
  try_values<Index>(
      "warmup", warmup, check, [](Index x) { return x >= 0 && x <= 2000; },
      "an integer from 0 to steps, which is 2000");
  warmup = 0;
  try_values<Index>(
      "steps", steps, check, [](Index x) { return x >= 1; }, "an integer >= 1");
  try_values<double>(
      "floor", floor, check, [](double x) { return x >= 0 && x <= 1; }, "0 <= floor <= 1");

  Given given{1};
  try_values<double>(
      "the schedule's factor of step 7", given.factor, [&] { (void)detail::checked_factor(given, 7); },
      [](double x) { return x >= 0 && x <= 1; }, "0 to 1");
}

TEST_CASE("Schedules of any length give factors from 0 to 1, without a trap", "[train]") {
  for (const Index steps : edge_values<Index>()) {
    for (const Index warmup : edge_values<Index>()) {
      const Cosine cosine{.warmup = warmup, .steps = steps};
      if (refusal([&] { cosine.check(); })) continue;
      for (const Index step : {Index{0}, Index{1}, warmup, steps - 1, steps, std::numeric_limits<Index>::max()}) {
        INFO(warmup << " of " << steps << ", step " << step);
        CHECK_FALSE(refusal([&] { (void)detail::checked_factor(cosine, step); }).has_value());
      }
    }
  }
}

TEST_CASE("Sampling options out of range are refused by name, and others draw, without a trap", "[train]") {
  Sampling sampling{.top_k = 3, .top_p = 0.9f};
  auto& [temperature, top_k, top_p] = sampling;
  const std::vector<float> logits{1, -2, 3, -std::numeric_limits<float>::infinity(), 2.5f};
  const std::function<void()> draw = [&] {
    Sampler sampler(sampling, Seed{1}, 5);
    for (int i = 0; i < 10; ++i) {
      const Token token = sampler(std::span<const float>(logits));
      if (token < 0 || token > 4 || token == 3) throw std::runtime_error("a token that cannot be drawn");
    }
  };
  try_values<float>(
      "temperature", temperature, draw, [](float x) { return x >= 0 && x < INFINITY; }, "a finite number >= 0");
  try_values<float>(
      "top_p", top_p, draw, [](float x) { return x > 0 && x <= 1; }, "0 < top_p <= 1");
  try_values<Index>(
      "top_k", top_k, draw, [](Index x) { return x >= 0; }, "an integer >= 0 (0: all tokens)");

  // The shorter forms.
  for (const float value : edge_values<float>()) {
    const bool temperature_ok = value >= 0 && value<INFINITY, p_ok = value> 0 && value <= 1;
    CHECK(refusal([&] { check(Temperature{value}); }).has_value() != temperature_ok);
    CHECK(refusal([&] { check(TopKSampling{2, value}); }).has_value() != temperature_ok);
    CHECK(refusal([&] { check(TopP{value}); }).has_value() != p_ok);
    CHECK(refusal([&] { check(TopP{0.5f, value}); }).has_value() != temperature_ok);
  }
  for (const Index k : edge_values<Index>()) CHECK(refusal([&] { check(TopKSampling{k}); }).has_value() == (k < 0));
}

TEST_CASE("Chunks and threads out of range are refused by name", "[train]") {
  Index chunk = 1;
  try_values<Index>(
      "chunk", chunk, [&] { (void)detail::checked_chunk(chunk); },
      [](Index x) { return x >= 1 && x <= Index{1} << 40; }, "1 to 2^40 tokens");
  for (const int threads : {std::numeric_limits<int>::min(), -1, 0, 1025, std::numeric_limits<int>::max()}) {
    CHECK(refusal([&] { Cpu device(Threads{threads}); }) ==
          "Threads is " + std::to_string(threads) + "; allowed: 1 to 1024");
  }
}
