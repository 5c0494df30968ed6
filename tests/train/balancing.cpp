// Training with selection biases: its effect on loads, and the properties of any training.
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "model/definitions.hpp"
#include "moe_mamba/train/trainer.hpp"
#include "support/allocations.hpp"
#include "support/backend.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;

namespace {

using Net = test::BalancedNet;

/// The imbalance of the balanced routers: the largest load over the mean, averaged over the routers and the last
/// quarter of the steps.
double imbalance(double rate, int steps) {
  test::ModelOf<Net> model(Seed{5});
  Trainer trainer(model, AdamW{.learning_rate = 1e-3}, Constant{}, TrainerOptions{.selection_bias_rate = rate});
  double sum = 0;
  int count = 0;
  for (int step = 0; step < steps; ++step) {
    const auto data = test::data<Net, float>({8, 16}, static_cast<std::uint64_t>(step));
    trainer.step(TokenBatch{data.inputs, data.targets, data.shape});
    if (step < steps * 3 / 4) continue;
    trainer.visit_routers([&](const RouterReport& router) {
      if (!router.has_selection_bias) return;
      double total = 0;
      for (const double load : router.load) total += load;
      sum +=
          *std::max_element(router.load.begin(), router.load.end()) * static_cast<double>(router.load.size()) / total;
      ++count;
    });
  }
  return sum / count;
}

/// A user-defined mixture that visits no router.
struct Silent {
  template <int W>
  struct Layer : Moe<Experts<4>, SelectionBias>::Layer<W> {
    template <class Visit>
    static void visit_routers(const Visit&, const double*) {}
  };
};

/// One whose router's report is no part of the layer's.
struct Elsewhere {
  template <int W>
  struct Layer : Moe<Experts<4>, SelectionBias>::Layer<W> {
    template <class Visit>
    static void visit_routers(const Visit& visit, const double*) {
      static const double load[4] = {};
      visit(RouterReport{.load = load, .has_selection_bias = true});
    }
  };
};

}  // namespace

TEST_CASE("A layer whose routers do not report the loads of their selection biases is refused", "[train]") {
  CHECK(selection_bias_places<LanguageModel<Vocabulary<5>, Width<4>, Moe<Experts<4>, SelectionBias>>>().size() == 1);
  const auto message = test::Contains("selection biases whose experts' loads are not reported");
  CHECK_THROWS_WITH((selection_bias_places<LanguageModel<Vocabulary<5>, Width<4>, Silent>>()), message);
  CHECK_THROWS_WITH((selection_bias_places<LanguageModel<Vocabulary<5>, Width<4>, Elsewhere>>()), message);
}

TEST_CASE("Selection biases balance loads, the sooner the larger the rate", "[train]") {
  const double still = imbalance(0, 240), slow = imbalance(1e-4, 240), fast = imbalance(1e-2, 240);
  INFO(still << ' ' << slow << ' ' << fast);
  CHECK(slow < still);
  CHECK(fast < slow);
  // Eleven tokens routed independently of their context cannot be balanced exactly.
  CHECK(fast - 1 < 0.75 * (still - 1));
}

TEMPLATE_TEST_CASE("Training with selection biases gives the same bits with 1, 2 and 3 threads", "[train]", float,
                   bfloat16) {
  const auto trained = [](int threads) {
    test::ModelOf<Net, TestType> model(Seed{1});
    auto device = test::open(threads);
    Trainer trainer(model, device, AdamW{}, Constant{}, TrainerOptions{.selection_bias_rate = 1e-2});
    for (std::uint64_t step = 0; step < 6; ++step) {
      const auto data = test::data<Net, float>({3, 70}, step);
      trainer.step(TokenBatch{data.inputs, data.targets, data.shape});
    }
    const auto remainder = trainer.progress().remainder;
    return std::pair{test::numbers(model), std::vector<std::int16_t>(remainder.begin(), remainder.end())};
  };
  const auto one = trained(1);
  CHECK(trained(2) == one);
  CHECK(trained(3) == one);
}

TEST_CASE("Steps that move selection biases allocate nothing", "[train]") {
  const auto data = test::data<Net, float>({2, 20});
  const TokenBatch batch{data.inputs, data.targets, data.shape};
  test::ModelOf<Net> model(Seed{1});
  auto device = test::open(2);
  Trainer trainer(model, device, AdamW{}, Constant{}, TrainerOptions{.largest = {2, 20}});
  const test::AllocationCounter counter;
  for (int step = 0; step < 3; ++step) trainer.step(batch);
  trainer.accumulate(batch);
  trainer.accumulate(batch);
  trainer.make_gradient_sum();
  trainer.update();
  CHECK(counter.count() == 0);
}
