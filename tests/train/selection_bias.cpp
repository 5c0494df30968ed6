// Selection biases that a trainer, or an optimizer without one, moves against their experts' loads.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "model/definitions.hpp"
#include "moe_mamba/train/trainer.hpp"
#include "support/backend.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;

namespace {

using Net = test::BalancedNet;
using Memory = test::Backend::Memory;
constexpr double rate = 0x1p-7;  // exact in any type

bool is_bias(const Parameter& parameter) { return parameter.kind == ParameterKind::selection_bias; }

/// The values of all selection biases, or of all other parameters, in their order.
template <class T>
std::vector<T> values(const std::vector<T>& parameters, bool biases) {
  std::vector<T> found;
  Net::visit_parameters([&](const Parameter& parameter) {
    if (is_bias(parameter) != biases) return;
    for (Index i = 0; i < parameter.size(); ++i) {
      found.push_back(parameters[static_cast<std::size_t>(parameter.offset + i)]);
    }
  });
  return found;
}
template <class S>
std::vector<double> biases_of(const test::ModelOf<Net, S>& model) {
  return test::converted<double>(values(test::numbers(model), true));
}

/// The loads of the experts that have a selection bias, in order, in the trainer's last batch.
std::vector<double> loads_of(const auto& trainer) {
  std::vector<double> loads;
  trainer.visit_routers([&](const RouterReport& router) {
    if (router.has_selection_bias) loads.insert(loads.end(), router.load.begin(), router.load.end());
  });
  return loads;
}

/// The change of the biases of Net's routers in one update with these loads.
std::vector<double> moves_for(const std::vector<double>& loads) {
  std::vector<double> moves;
  for (const auto& [first, count] : {std::pair{0, 4}, {4, 7}, {11, 7}}) {
    double sum = 0;
    for (int e = 0; e < count; ++e) sum += loads[static_cast<std::size_t>(first + e)];
    for (int e = 0; e < count; ++e) {
      const double load = loads[static_cast<std::size_t>(first + e)] * count;
      moves.push_back(load < sum ? rate : load > sum ? -rate : 0);
    }
  }
  return moves;
}

TokenBatch batch_of(const test::Data<Net, float>& data) { return {data.inputs, data.targets, data.shape}; }

constexpr TrainerOptions moving{.selection_bias_rate = rate};

}  // namespace

TEST_CASE("Each selection bias follows the loads of its own experts", "[train]") {
  const auto places = selection_bias_places<Net>();
  std::vector<std::string> names;
  Net::visit_parameters([&](const Parameter& parameter) {
    if (!is_bias(parameter)) return;
    REQUIRE(names.size() < places.size());
    CHECK(places[names.size()].bias == parameter.offset);
    CHECK(places[names.size()].experts == parameter.size());
    names.emplace_back(parameter.name.view());
  });
  CHECK(names == std::vector<std::string>{"layers.0.mixer.0.router.selection_bias",
                                          "layers.2.mixer.router.selection_bias",
                                          "layers.4.mixer.router.selection_bias"});
  CHECK(selection_bias_places<test::TrainedNet>().empty());

  // A large bias sends all tokens to its expert.
  const auto data = test::data<Net, float>({2, 9});
  for (const SelectionBiasPlace& place : places) {
    for (int e = 0; e < place.experts; ++e) {
      auto parameters = test::numbers(test::ModelOf<Net>(Seed{1}));
      parameters[static_cast<std::size_t>(place.bias + e)] = 10;
      test::ModelOf<Net> model(Seed{1});
      model.write(parameters);
      Trainer trainer(model, AdamW{}, Constant{}, moving);
      trainer.evaluate(batch_of(data));
      const auto loads = loads_of(trainer);
      const std::size_t router = static_cast<std::size_t>(&place - places.data());
      CHECK(loads[(router == 0 ? 0 : router == 1 ? 4 : 11) + static_cast<std::size_t>(e)] == 18);
    }
  }
}

TEMPLATE_TEST_CASE("An update moves biases by the sign of the mean load minus their experts' loads, and nothing else",
                   "[train]", float, double, bfloat16) {
  using S = TestType;
  const auto data = test::data<Net, compute_t<S>>({3, 10});
  test::ModelOf<Net, S> model(Seed{1}), other(Seed{1});
  Trainer trainer(model, AdamW{}, Constant{}, moving);
  Trainer still(other, AdamW{}, Constant{}, TrainerOptions{.selection_bias_rate = 0});
  const TokenBatch batch{data.inputs, data.targets, data.shape};
  REQUIRE(trainer.step(batch).applied);
  REQUIRE(still.step(batch).applied);
  CHECK(biases_of<S>(model) == moves_for(loads_of(trainer)));
  CHECK(biases_of<S>(other) == std::vector<double>(18));
  CHECK(values(test::numbers(model), false) == values(test::numbers(other), false));
  const auto progress = trainer.progress();
  for (const auto* moment : {&progress.first_moment, &progress.second_moment}) {
    const std::vector<compute_t<S>> all(moment->span().begin(), moment->span().end());
    CHECK(values(all, true) == std::vector<compute_t<S>>(18));
  }
}

TEST_CASE("bfloat16 biases accumulate moves below their resolution", "[train]") {
  test::ModelOf<Net, bfloat16> model(Seed{1});
  auto parameters = test::numbers(model);
  const SelectionBiasPlace place = selection_bias_places<Net>()[1];
  const auto at = static_cast<std::size_t>(place.bias);
  parameters[at] = bfloat16(8.0f);  // an expert that is overloaded throughout this test
  model.write(parameters);
  Trainer trainer(model, AdamW{}, Constant{}, TrainerOptions{.selection_bias_rate = 0x1p-10});
  const auto data = test::data<Net, float>({3, 10});
  float expected = 8;
  for (int step = 0; step < 40; ++step) {
    trainer.step(batch_of(data));
    expected -= 0x1p-10f;
    const float bias = join_float({test::numbers(model)[at], trainer.progress().remainder[at]});
    CHECK(bias == expected);
  }
  CHECK(float(test::numbers(model)[at]) < 8);  // the next smaller bfloat16 is 2^-5 away
}

TEST_CASE("AdamW leaves biases alone, whatever their values and gradients are", "[train]") {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  test::ModelOf<Net> model(Seed{1});
  auto parameters = test::numbers(model);
  for (const SelectionBiasPlace& place : selection_bias_places<Net>()) {
    parameters[static_cast<std::size_t>(place.bias)] = -infinity;  // an expert without tokens
    parameters[static_cast<std::size_t>(place.bias) + 1] = 0.25f;
  }
  model.write(parameters);
  Trainer trainer(model, AdamW{.weight_decay = 0.5}, Constant{}, TrainerOptions{.selection_bias_rate = 0});
  const auto data = test::data<Net, float>({3, 10});
  trainer.accumulate(batch_of(data));
  std::vector<float> gradients(parameters.size());
  Memory::read(gradients.data(), trainer.gradients().data(), gradients.size() * sizeof(float));
  CHECK(values(gradients, true) == std::vector<float>(18));
  for (float& gradient : gradients) gradient += 0.5f;
  Memory::write(trainer.gradients().data(), gradients.data(), gradients.size() * sizeof(float));
  CHECK(trainer.update().applied);
  CHECK(values(test::numbers(model), true) == values(parameters, true));
  CHECK(values(test::numbers(model), false) != values(parameters, false));
}

TEST_CASE("Loads are summed over the batches of an update, and masked targets do not count", "[train]") {
  const auto data = test::data<Net, double>({4, 7});
  auto targets = data.targets;
  for (std::size_t t = 0; t < targets.size(); t += 3) targets[t] = masked_target;
  std::fill(targets.begin() + 14, targets.begin() + 21, masked_target);  // a batch without targets
  const auto part = [&](const std::vector<Token>& tokens, std::size_t first, std::size_t count) {
    return std::span<const Token>(tokens).subspan(7 * first, 7 * count);
  };
  test::ModelOf<Net, double> one(Seed{1}), two(Seed{1});
  Trainer together(one, AdamW{}, Constant{}, moving), apart(two, AdamW{}, Constant{}, moving);
  together.step(TokenBatch{data.inputs, targets, data.shape});
  std::vector<double> loads(18);
  for (const auto& [first, count] : {std::pair<std::size_t, std::size_t>{0, 2}, {2, 1}, {3, 1}}) {
    apart.accumulate(TokenBatch{part(data.inputs, first, count), part(targets, first, count), {Index(count), 7}});
    const auto more = loads_of(apart);
    for (std::size_t i = 0; i < loads.size(); ++i) loads[i] += more[i];
  }
  CHECK(loads == loads_of(together));
  apart.update();
  CHECK(biases_of<double>(one) == moves_for(loads));
  CHECK(biases_of<double>(two) == biases_of<double>(one));
  // The next update counts from zero.
  auto before = biases_of<double>(two);
  apart.step(TokenBatch{data.inputs, targets, data.shape});
  const auto moves = moves_for(loads_of(apart));
  for (std::size_t i = 0; i < before.size(); ++i) before[i] += moves[i];
  CHECK(biases_of<double>(two) == before);
}

TEST_CASE("An update that is not applied, or is discarded, leaves biases unchanged", "[train]") {
  const auto data = test::data<Net, float>({3, 10});
  test::ModelOf<Net> model(Seed{1}), other(Seed{1});
  Trainer trainer(model, AdamW{}, Constant{}, moving), expected(other, AdamW{}, Constant{}, moving);
  trainer.accumulate(batch_of(data));
  const float nan = NAN;
  Memory::write(trainer.gradients().data(), &nan, sizeof nan);
  CHECK_FALSE(trainer.update().applied);
  CHECK(test::numbers(model) == test::numbers(other));
  trainer.accumulate(batch_of(data));
  trainer.discard();
  const std::vector<Token> none(30, masked_target);
  trainer.accumulate(TokenBatch{data.inputs, none, data.shape});
  CHECK_FALSE(trainer.update().applied);
  CHECK(test::numbers(model) == test::numbers(other));
  trainer.step(batch_of(data));
  expected.step(batch_of(data));
  CHECK(biases_of<float>(model) == biases_of<float>(other));
}

TEST_CASE("Trainers that add up their reports move biases like one trainer of all their batches", "[train]") {
  const auto data = test::data<Net, double>({4, 5});
  const auto half = [&](const std::vector<Token>& tokens, std::size_t part) {
    return std::span<const Token>(tokens).subspan(10 * part, 10);
  };
  for (const bool second_is_idle : {false, true}) {
    test::ModelOf<Net, double> one(Seed{1}), two(Seed{1}), whole(Seed{1});
    Trainer first(one, AdamW{}, Constant{}, moving), second(two, AdamW{}, Constant{}, moving),
        together(whole, AdamW{}, Constant{}, moving);
    const std::vector<Token> none(10, masked_target);
    const Losses a = first.accumulate(TokenBatch{half(data.inputs, 0), half(data.targets, 0), {2, 5}});
    const Losses b = second.accumulate(TokenBatch{
        half(data.inputs, 1), second_is_idle ? std::span<const Token>(none) : half(data.targets, 1), {2, 5}});
    first.make_gradient_sum();
    second.make_gradient_sum();
    REQUIRE(first.reports().size() == static_cast<std::size_t>(Net::Body::report_size));
    const auto add = [](auto mine, auto& sum) {
      using T = std::decay_t<decltype(sum[0])>;
      std::vector<T> numbers(sum.size());
      Memory::read(numbers.data(), mine.data(), numbers.size() * sizeof(T));
      for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += numbers[i];
    };
    std::vector<double> gradients(static_cast<std::size_t>(Net::parameters)), reports(first.reports().size());
    for (auto* rank : {&first, &second}) {
      add(rank->gradients(), gradients);
      add(rank->reports(), reports);
    }
    for (auto* rank : {&first, &second}) {
      Memory::write(rank->gradients().data(), gradients.data(), gradients.size() * sizeof(double));
      Memory::write(rank->reports().data(), reports.data(), reports.size() * sizeof(double));
    }
    first.count_others(b);
    second.count_others(a);
    CHECK(first.update().applied);
    CHECK(second.update().applied);
    together.accumulate(TokenBatch{half(data.inputs, 0), half(data.targets, 0), {2, 5}});
    if (!second_is_idle) together.accumulate(TokenBatch{half(data.inputs, 1), half(data.targets, 1), {2, 5}});
    together.update();
    CHECK(biases_of<double>(one) == biases_of<double>(whole));
    CHECK(biases_of<double>(two) == biases_of<double>(whole));
  }
}

TEMPLATE_TEST_CASE("An optimizer without a trainer moves biases, in parts of the array too", "[train]", float,
                   bfloat16) {
  using S = TestType;
  constexpr Index count = Net::parameters;
  const auto data = test::data<Net, float>({3, 10});
  test::ModelOf<Net, S> model(Seed{1});
  Trainer trainer(model, AdamW{}, Constant{}, moving);
  for (int step = 0; step < 3; ++step) trainer.step(batch_of(data));

  const SelectionBiasPlace place = selection_bias_places<Net>()[1];
  for (const std::vector<Index>& cuts :
       {std::vector<Index>{0, count}, {0, 64, 64, count / 64 * 32, count}, {0, place.bias / 64 * 64, count}}) {
    test::ModelOf<Net, S> own(Seed{1});
    auto device = test::open(2);
    Workspace<Net, S, test::Backend> workspace(device, data.shape, Purpose::training);
    GradientSum<Net, S, test::Backend> sum;
    Optimizer<Net, S, test::Backend> optimizer;
    for (Index number = 1; number <= 3; ++number) {
      {
        Session<Net, S, test::Backend> session(workspace, own.parameters().data());
        const auto staged = session.stage_inputs(std::span<const Token>(data.inputs), data.shape);
        const auto targets = session.stage_targets(std::span<const Token>(data.targets), data.shape);
        sum.add(session, {data.shape, staged, targets}, data.shape.tokens(), own.parameters().data());
      }
      optimizer.sum_squares(device, sum.values().data());
      const typename Optimizer<Net, S, test::Backend>::Step step{.scale = sum.scale(),
                                                                 .learning_rate = AdamW{}.learning_rate,
                                                                 .number = number,
                                                                 .clip_norm = 1,
                                                                 .selection_bias_rate = rate};
      for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
        const IndexRange part{cuts[i], cuts[i + 1]};
        optimizer.update(device, own.parameters().data(), sum.values().data(), AdamW{}, step, part);
        optimizer.update_selection_biases(device, own.parameters().data(), sum.reports(), step, part);
      }
      optimizer.squares(device);  // waits
      sum.reset();
    }
    CHECK(test::numbers(own) == test::numbers(model));
  }
}
