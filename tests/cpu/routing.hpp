#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "moe_mamba/cpu/router.hpp"
#include "moe_mamba/reference/router.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

namespace test {

using namespace moe_mamba;

/// All inputs and outputs of a router of `E` experts and `K` choices for some tokens. With a selection bias of type B
/// if `bias` is not empty.
template <class C, int E, int K, class B = C>
struct Routing {
  GateOrder order;
  Index tokens;
  double balance = 0.7, z = 0.3;
  std::vector<C> logits, probabilities, log_sum_exp, gates, dgates, dlogits;
  std::vector<Index> experts;
  std::vector<double> load, mean_probability;
  double entropy = NAN, square = NAN, reported_balance = NAN, counted = NAN;
  std::vector<Token> targets;  // none: all tokens count
  std::vector<B> bias;
  bool normalised = false;
  double scale = 1;
  std::vector<C> sigmoids;

  Routing(GateOrder order_, Index tokens_, double range = 3) : order(order_), tokens(tokens_) {
    logits = uniform<C>(tokens * E, 1, -range, range);
    dgates = uniform<C>(tokens * K, 2);
    probabilities = dlogits = poison<C>(tokens * E);
    log_sum_exp = poison<C>(tokens);
    gates = sigmoids = poison<C>(tokens * K);
    experts.assign(static_cast<std::size_t>(tokens * K), -77);
    load = mean_probability = poison<double>(E);
  }

  template <class Device>
  void run(Device& device) {
    route(device,
          Router<C, E, K, B>{order, matrix<const C>(logits.data(), tokens, E), matrix(probabilities.data(), tokens, E),
                             log_sum_exp.data(), experts.data(), gates.data(), load.data(), mean_probability.data(),
                             &entropy, &square, &counted, targets.empty() ? nullptr : targets.data(),
                             bias.empty() ? nullptr : bias.data(), normalised, scale, sigmoids.data()});
    const RouterMeans means = router_means(E, K, load.data(), mean_probability.data(), entropy, square, counted);
    reported_balance = means.balance;
    entropy = means.entropy;
    square = means.square_log_sum_exp;
    for (double& probability : mean_probability) probability /= std::max(counted, 1.0);
  }
  template <class Device>
  void run_backward(Device& device) {
    router_backward(device, RouterBackward<C, E, K>{order, matrix<const C>(probabilities.data(), tokens, E),
                                                    log_sum_exp.data(), experts.data(), gates.data(), load.data(),
                                                    dgates.data(), balance, z, matrix(dlogits.data(), tokens, E),
                                                    &counted, targets.empty() ? nullptr : targets.data(), normalised,
                                                    scale, sigmoids.data()});
  }

  /// E Σ f P
  double even() const {
    double sum = 0;
    for (std::size_t e = 0; e < E; ++e) sum += load[e] / (double(tokens) * K) * mean_probability[e];
    return E * sum;
  }
};

/// Checks the gradient of the gates, weighted by dgates, and of both losses against finite differences.
template <int E, int K, class Device>
void check_gradient(Routing<double, E, K>& routing, Device& device) {
  routing.run(device);
  const auto experts = routing.experts;
  const auto loss = [&] {
    routing.run(device);
    REQUIRE(routing.experts == experts);  // no choice changes within a step of the differences
    double sum = routing.balance * routing.even() + routing.z * routing.square;
    for (std::size_t i = 0; i < routing.gates.size(); ++i) sum += routing.gates[i] * routing.dgates[i];
    return sum;
  };
  std::vector<double> expected;
  for (double& logit : routing.logits) expected.push_back(finite_difference(logit, 1e-3, loss));
  routing.run(device);
  routing.run_backward(device);
  CHECK(relative_error(routing.dlogits, expected) < 1e-7);
}

template <int E_, int K_>
struct Sizes {
  static constexpr int E = E_, K = K_;
};

inline const auto orders = {GateOrder::softmax_then_top_k, GateOrder::top_k_then_softmax,
                            GateOrder::sigmoid_then_top_k};

/// Equal up to rounding, by default that of float.
inline bool close(double actual, double expected, double tolerance = 1e-6) {
  return std::abs(actual - expected) <= tolerance * std::abs(expected);
}

}  // namespace test
