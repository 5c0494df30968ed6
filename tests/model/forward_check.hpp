#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <type_traits>
#include <vector>

#include "model/definitions.hpp"
#include "model/naive_model.hpp"
#include "support/catch.hpp"

/// Outputs, states, losses and reports of whole models against the naive implementation.
namespace test {

template <class Definition, class C>
std::vector<naive::Vector> naive_states(const States<Definition, C>& states) {
  std::vector<naive::Vector> result;
  for (Index b = 0; b < states.count(); ++b) result.emplace_back(states.sequence(b).begin(), states.sequence(b).end());
  return result;
}

/// The naive results in double, with the parameters of a model of S.
template <class Definition, class S, class C>
naive::Outcome naive_outcome(const Bench<Definition, S>& bench, const Data<Definition, C>& batch,
                             const States<Definition, S>& states) {
  naive::Vector parameters;
  for (const S value : numbers(bench.model)) parameters.push_back(static_cast<double>(value));
  using Input = std::conditional_t<Data<Definition, C>::takes_tokens, Token, double>;
  const std::vector<Input> inputs(batch.inputs.begin(), batch.inputs.end());
  return naive::forward<Definition>(parameters, inputs, batch.shape.batch, batch.shape.length, naive_states(states));
}

/// `bound`: the tolerance for outputs, states and losses, relative to the largest.
template <class Definition, class S>
void check_model_forward(const std::vector<Shape>& shapes, double bound) {
  using C = compute_t<S>;
  auto device = test::open(2);
  Shape largest{1, 1};
  for (const Shape shape : shapes) {
    largest = {std::max(largest.batch, shape.batch), std::max(largest.length, shape.length)};
  }
  Bench<Definition, S> bench(device, largest, parameters<Definition>());
  for (const Shape shape : shapes) {
    INFO("B = " << shape.batch << ", L = " << shape.length);
    const auto batch = data<Definition, C>(shape);
    const auto initial = random_states<Definition, S>(shape.batch);
    const naive::Outcome expected = naive_outcome(bench, batch, initial);
    CHECK(expected.all_parameters_used);

    auto states = initial;
    CHECK(relative_error(bench.forward(batch.inputs, shape, &states), expected.outputs.values) <= bound);
    const auto final_states = naive_states(states);
    for (std::size_t b = 0; b < final_states.size(); ++b) {
      CHECK(relative_error(final_states[b], expected.states[b]) <= bound);
    }

    states = initial;
    const Losses losses = bench.loss(batch, &states);
    double prediction = 0;
    if constexpr (Data<Definition, C>::takes_tokens) {
      prediction = naive::cross_entropy(expected.outputs, batch.targets);
      CHECK(losses.targets == shape.tokens());
    } else {
      prediction = naive::squared_error(expected.outputs, naive::Vector(batch.targets.begin(), batch.targets.end()));
      CHECK(losses.targets == shape.tokens() * Definition::output_width);
    }
    CHECK(std::abs(losses.prediction - prediction) <= bound * (1 + prediction));
    CHECK(std::abs(losses.auxiliary - expected.auxiliary) <= bound * (1 + expected.auxiliary));
    CHECK(losses.total() == losses.prediction + losses.auxiliary);
    CHECK(bench.workspace.auxiliary_loss() == losses.auxiliary);

    std::size_t router = 0;
    bench.workspace.visit_routers([&](const RouterReport& report) {
      REQUIRE(router < expected.routers.size());
      const naive::Router& other = expected.routers[router++];
      CHECK(std::vector<double>(report.load.begin(), report.load.end()) == other.load);
      CHECK(report.dropped == other.dropped);
      CHECK(std::abs(report.entropy - other.entropy) <= bound * (1 + other.entropy));
      CHECK(std::abs(report.balance_loss - other.balance_loss) <= bound * (1 + other.balance_loss));
      CHECK(std::abs(report.z_loss - other.z_loss) <= bound * (1 + other.z_loss));
    });
    CHECK(router == expected.routers.size());

    if (shape.length == 0) continue;
    states = initial;
    const auto last = bench.forward_last(batch.inputs, shape, &states);
    std::vector<double> expected_last;
    for (Index b = 0; b < shape.batch; ++b) {
      for (Index i = 0; i < Definition::output_width; ++i) {
        expected_last.push_back(expected.outputs((b + 1) * shape.length - 1, i));
      }
    }
    CHECK(relative_error(last, expected_last) <= bound);
  }
}

}  // namespace test
