#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "layers/finite_differences.hpp"
#include "model/definitions.hpp"
#include "model/naive_model.hpp"
#include "moe_mamba/reference.hpp"
#include "support/catch.hpp"

/// Gradients of whole models against finite differences of the naive implementation.
namespace test {

/// A batch with everything that a loss depends on, computed naively.
template <class Definition>
struct NaiveLoss {
  explicit NaiveLoss(Shape shape)
      : values(parameters<Definition>()),
        batch(data<Definition, double>(shape, 4)),  // none of whose tokens is close to a tie between two experts
        states(random_states<Definition, double>(shape.batch)),
        dstates(random_states<Definition, double>(shape.batch, 2)) {}

  naive::Outcome forward() const {
    std::vector<naive::Vector> initial;
    for (Index b = 0; b < states.count(); ++b) {
      const auto state = states.sequence(b);
      initial.emplace_back(state.begin(), state.end());
    }
    std::vector<bool> counted;
    if constexpr (Data<Definition, double>::takes_tokens) {
      for (const Token target : batch.targets) counted.push_back(target != masked_target);
    }
    return naive::forward<Definition>(values, batch.inputs, batch.shape.batch, batch.shape.length, initial, counted);
  }

  /// The terms common to all objectives: auxiliary losses, and Σ dstate · final state.
  double rest(const naive::Outcome& outcome) const {
    double sum = outcome.auxiliary;
    for (Index b = 0; b < states.count(); ++b) {
      const auto dstate = dstates.sequence(b);
      for (std::size_t i = 0; i < dstate.size(); ++i) sum += dstate[i] * outcome.states[static_cast<std::size_t>(b)][i];
    }
    return sum;
  }

  double loss(std::uint64_t& decisions) const {
    const naive::Outcome outcome = forward();
    decisions = outcome.decisions;
    if constexpr (Data<Definition, double>::takes_tokens) {
      return rest(outcome) + naive::cross_entropy(outcome.outputs, batch.targets);
    } else {
      return rest(outcome) + naive::squared_error(outcome.outputs, batch.targets);
    }
  }

  std::vector<double> values;
  Data<Definition, double> batch;
  States<Definition, double> states, dstates;
};

/// Every parameter tensor at some twenty elements, and the initial states.
template <class Definition, class Objective>
void check_all_gradients(NaiveLoss<Definition>& naive, const std::vector<double>& gradients, double at_start,
                         const States<Definition, double>& dstates, const Objective& objective) {
  for (const Parameter& parameter : parameter_list<Definition>()) {
    INFO("gradient w.r.t. " << parameter.name.view());
    check_gradient(std::span(naive.values)
                       .subspan(static_cast<std::size_t>(parameter.offset), static_cast<std::size_t>(parameter.size())),
                   gradients.data() + parameter.offset, at_start, std::max<Index>(parameter.size() / 20, 1), objective);
  }
  INFO("gradient w.r.t. the initial states");
  const auto states = naive.states.values();
  check_gradient(states, dstates.values().data(), 0, std::max<Index>(static_cast<Index>(states.size()) / 40, 1),
                 objective);
}

/// The loss and all its gradients on a backend.
template <class Definition, class Device>
struct Gradients {
  Gradients(Device& device, const NaiveLoss<Definition>& naive) : states(naive.states), dstates(naive.dstates) {
    const Shape shape = naive.batch.shape;
    Bench<Definition, double, Device> bench(device, {shape.batch, std::max<Index>(shape.length, 1)}, naive.values);
    losses = bench.gradient(naive.batch, parameters, &states, &dstates);
  }

  Losses losses;
  std::vector<double> parameters = std::vector<double>(static_cast<std::size_t>(Definition::parameters));
  States<Definition, double> states, dstates;
};

/// Checks that the tested backend and the reference backend give the same gradients, and returns the former's.
template <class Definition>
Gradients<Definition, Backend> check_same_gradients(const NaiveLoss<Definition>& naive) {
  auto device = test::open(2);
  reference::Device reference;
  const Gradients<Definition, Backend> ours(device, naive);
  const Gradients<Definition, reference::Device> other(reference, naive);
  const auto numbers = [](const States<Definition, double>& values) {
    return std::vector<double>(values.values().begin(), values.values().end());
  };
  // Sums in different orders: about a hundred roundings of 2⁻⁵³.
  CHECK(std::abs(ours.losses.total() - other.losses.total()) <= 1e-13 * (1 + other.losses.total()));
  CHECK(relative_error(ours.parameters, other.parameters) <= 1e-11);
  CHECK(relative_error(numbers(ours.states), numbers(other.states)) <= 1e-11);
  CHECK(relative_error(numbers(ours.dstates), numbers(other.dstates)) <= 1e-11);
  return ours;
}

/// Model::gradient against finite differences, and against the reference backend.
template <class Definition>
void check_model_gradient(Shape shape) {
  INFO("B = " << shape.batch << ", L = " << shape.length);
  NaiveLoss<Definition> naive(shape);
  const auto gradients = check_same_gradients(naive);
  check_all_gradients(naive, gradients.parameters, 0, gradients.dstates,
                      [&](std::uint64_t& decisions) { return naive.loss(decisions); });
}

}  // namespace test
