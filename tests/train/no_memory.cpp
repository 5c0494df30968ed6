// A trainer that runs out of memory is unchanged: the n-th allocation fails, for every n.
#include <memory>
#include <vector>

#include "model/passes.hpp"
#include "moe_mamba/train/packing.hpp"
#include "moe_mamba/train/trainer.hpp"
#include "support/allocations.hpp"
#include "support/backend.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

using namespace moe_mamba;

namespace {

using Net = test::TrainedNet;
using TrainerType = Trainer<Net, float, test::Backend, Constant>;

const std::vector<Token> tokens{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10};

TokenBatch batch(Index sequences, Index length, bool continues = false) {
  const auto part = std::span(tokens).first(static_cast<std::size_t>(sequences * length));
  return {part, part, {sequences, length}, continues};
}

/// A run that has carried states of two sequences through a step, and accumulated a batch.
struct Run {
  test::ModelOf<Net> model{Seed{1}};
  TrainerType trainer{model, AdamW{}, Constant{}, TrainerOptions{.carry_states = true}};

  Run() {
    trainer.step(batch(2, 5));
    trainer.accumulate(batch(2, 3, true));
  }
};

/// The results of a run from here on, which must be the same after a failure.
std::vector<double> future(Run& run) {
  std::vector<double> numbers;
  const auto note = [&](const StepReport& report) {
    numbers.insert(numbers.end(), {report.loss, report.gradient_norm, double(report.targets), double(report.applied)});
  };
  numbers.push_back(run.trainer.accumulate(batch(2, 4, true)).prediction);
  note(run.trainer.update());
  note(run.trainer.step(batch(2, 5, true)));
  numbers.push_back(double(run.trainer.steps()));
  for (const float parameter : test::numbers(run.model)) numbers.push_back(double(parameter));
  return numbers;
}

template <class Call>
void check_each_failure(const Call& call, bool allocates = true) {
  Run undisturbed;
  const auto expected = future(undisturbed);
  const long failures =
      test::fail_each_allocation([] { return std::make_unique<Run>(); }, [&](const auto& run) { call(run->trainer); },
                                 [&](const auto& run) { CHECK(future(*run) == expected); });
  CHECK((failures > 0) == allocates);
}

}  // namespace

TEST_CASE("a step, an evaluation or a restoration that runs out of memory changes nothing", "[train]") {
  check_each_failure([](TrainerType& trainer) { trainer.step(batch(3, 7)); });
  check_each_failure([](TrainerType& trainer) { trainer.accumulate(batch(3, 7)); });
  check_each_failure([](TrainerType& trainer) { trainer.accumulate(batch(3, 2)); });
  check_each_failure([](TrainerType& trainer) { trainer.evaluate(batch(3, 7)); });
  const std::vector<Index> lengths{9, 1, 0, 11};
  check_each_failure([&](TrainerType& trainer) { trainer.step(TokenBatch{tokens, tokens, Shape::packed(lengths)}); });
  Run other;
  other.trainer.step(batch(3, 7));
  const auto progress = other.trainer.progress();
  check_each_failure([&](TrainerType& trainer) { trainer.restore(progress); });
  check_each_failure([](TrainerType& trainer) { trainer.step(batch(2, 5, true)); }, false);
}

TEST_CASE("a trainer that cannot be constructed frees what it allocated", "[train]") {
  test::ModelOf<Net> model(Seed{1});
  const auto before = test::numbers(model);
  for (const int threads : {1, 2}) {
    const long failures = test::fail_each_allocation(
        [] { return 0; },
        [&](int) {
          auto device = test::open(threads);
          TrainerType(model, device, AdamW{}, Constant{}, {.largest = {2, 5}, .carry_states = true});
        },
        [&](int) { CHECK(test::numbers(model) == before); });
    CHECK(failures > 0);
  }
}

TEST_CASE("the first batch may be empty", "[train]") {
  test::ModelOf<Net> model(Seed{1});
  for (const Shape shape : {Shape{2, 0}, Shape{0, 5}, Shape{0, 0}, Shape::packed({})}) {
    for (const bool carried : {false, true}) {
      Trainer trainer(model, AdamW{}, Constant{}, TrainerOptions{.carry_states = carried});
      const TokenBatch empty{{}, {}, shape};
      CHECK_FALSE(trainer.step(empty).applied);
      CHECK(trainer.evaluate(empty).targets == 0);
      CHECK_FALSE(trainer.step(TokenBatch{{}, {}, shape, true}).applied);
      CHECK(trainer.step(batch(2, 5)).applied);
    }
  }
}
