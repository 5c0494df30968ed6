// Routers with a selection bias, and gates that are normalised and scaled.
#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/routing.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;
using test::close;
using test::orders;
using test::Routing;
using test::Sizes;

namespace {

/// Calls `check` for every kind of gates: order, whether normalised, scale.
template <class Check>
void for_all_gates(const Check& check) {
  for (const double scale : {1.0, 2.5}) {
    for (const GateOrder order : orders) check(order, false, scale);
    check(GateOrder::sigmoid_then_top_k, true, scale);
  }
}

/// A routing of random numbers whose bias changes about every second choice.
template <class C, int E, int K, class B = C>
Routing<C, E, K, B> biased(GateOrder order, bool normalised, double scale, Index tokens) {
  Routing<C, E, K, B> routing(order, tokens);
  // Those of any type are of the same value.
  for (const bfloat16 bias : test::uniform<bfloat16>(E, 3, -0.3, 0.3)) routing.bias.push_back(B(float(bias)));
  routing.normalised = normalised;
  routing.scale = scale;
  return routing;
}

/// The score plus bias by which a routing of C chooses, in double.
template <class C, int E, int K, class B>
double biased_score(const Routing<C, E, K, B>& routing, Index token, Index expert) {
  const C* logits = routing.logits.data() + token * E;
  double sum = 0;
  for (int e = 0; e < E; ++e) sum += std::exp(double(logits[e]));
  const double p = std::exp(double(logits[expert])) / sum;
  const double score = routing.order == GateOrder::sigmoid_then_top_k ? sigmoid(double(logits[expert])) : p;
  return score + double(routing.bias[static_cast<std::size_t>(expert)]);
}

template <class C, class B, int E, int K>
void check_against_reference(double tolerance) {
  cpu::Device device;
  reference::Device plain;
  for_all_gates([&](GateOrder order, bool normalised, double scale) {
    for (const Index tokens : {0, 1, 2, 63, 300}) {
      CAPTURE(E, K, tokens, tolerance, normalised, scale);
      auto actual = biased<C, E, K, B>(order, normalised, scale, tokens);
      auto expected = biased<double, E, K>(order, normalised, scale, tokens);
      actual.run(device);
      expected.run(plain);
      CHECK(actual.experts == expected.experts);
      CHECK(actual.load == expected.load);
      CHECK(test::relative_error(actual.probabilities, expected.probabilities) <= tolerance);
      CHECK(test::relative_error(actual.gates, expected.gates) <= tolerance);
      if (normalised) CHECK(test::relative_error(actual.sigmoids, expected.sigmoids) <= tolerance);
      for (Index t = 0; t < tokens; ++t) {
        for (Index k = 1; k < K; ++k) {
          const Index* chosen = actual.experts.data() + t * K + k;
          CHECK(biased_score(actual, t, chosen[-1]) >= biased_score(actual, t, chosen[0]) - tolerance);
        }
      }
      actual.run_backward(device);
      expected.run_backward(plain);
      // With a single choice the gradient of a normalised gate cancels: compare with the incoming one, up to 1.
      double error = 0, magnitude = K == 1 ? 1 : 0;
      for (std::size_t i = 0; i < actual.dlogits.size(); ++i) {
        const double difference = std::abs(double(actual.dlogits[i]) - expected.dlogits[i]);
        error = std::isnan(error) || difference <= error ? error : difference;
        magnitude = std::max(magnitude, std::abs(expected.dlogits[i]));
      }
      CHECK(error <= 4 * tolerance * magnitude);
    }
  });
}

}  // namespace

TEMPLATE_TEST_CASE("biased, normalised and scaled routing agrees with the reference", "[cpu][router]", (Sizes<1, 1>),
                   (Sizes<2, 1>), (Sizes<8, 2>), (Sizes<13, 4>), (Sizes<33, 33>)) {
  // As without a bias; the sum with the bias rounds once more.
  check_against_reference<float, float, TestType::E, TestType::K>(1e-6);
  check_against_reference<float, bfloat16, TestType::E, TestType::K>(1e-6);
  check_against_reference<double, double, TestType::E, TestType::K>(1e-12);
}

TEMPLATE_TEST_CASE("the gradient of biased, normalised and scaled gates agrees with finite differences",
                   "[reference][router]", (Sizes<1, 1>), (Sizes<4, 1>), (Sizes<5, 2>), (Sizes<3, 3>)) {
  constexpr int E = TestType::E, K = TestType::K;
  reference::Device device;
  for_all_gates([&](GateOrder order, bool normalised, double scale) {
    auto routing = biased<double, E, K>(order, normalised, scale, 4);
    CAPTURE(E, K, normalised, scale);
    test::check_gradient(routing, device);
  });
}

TEST_CASE("a bias affects the choice but not the gates", "[cpu][reference][router]") {
  cpu::Device device;
  reference::Device plain;
  const auto run = [&](GateOrder order, bool normalised, double scale, const std::vector<double>& gates) {
    Routing<double, 4, 2> routing(order, 1);
    routing.logits = {std::log(3.0), std::log(2.0), 0, -std::log(3.0)};  // sigmoids 3/4, 2/3, 1/2, 1/4
    routing.bias = {0, -1, -1, 0.75};
    routing.normalised = normalised;
    routing.scale = scale;
    auto expected = routing;
    routing.run(device);
    expected.run(plain);
    for (const auto* result : {&routing, &expected}) {
      CHECK(result->experts == std::vector<Index>{3, 0});
      CHECK(result->load == std::vector<double>{1, 0, 0, 1});
      for (std::size_t k = 0; k < 2; ++k) CHECK(close(result->gates[k], gates[k], 1e-14));
      if (normalised) CHECK(close(result->sigmoids[0], 0.25, 1e-14));
    }
  };
  // Powers of the logits 3, 2, 1 and 1/3, which add up to 19/3.
  run(GateOrder::softmax_then_top_k, false, 1, {1.0 / 19, 9.0 / 19});
  run(GateOrder::top_k_then_softmax, false, 1, {0.1, 0.9});
  run(GateOrder::sigmoid_then_top_k, false, 1, {0.25, 0.75});
  run(GateOrder::sigmoid_then_top_k, true, 1, {0.25, 0.75});
  run(GateOrder::softmax_then_top_k, false, 19, {1, 9});
  run(GateOrder::top_k_then_softmax, false, 10, {1, 9});
  run(GateOrder::sigmoid_then_top_k, true, 2.5, {0.625, 1.875});
}

TEMPLATE_TEST_CASE("gates of improbable experts add up to one", "[cpu][router]", float, double) {
  // exp(-400) and exp(-800) are 0 in float, exp(-800) in double.
  cpu::Device device;
  for (const TestType low : {TestType(-400), TestType(-800)}) {
    for (const GateOrder order : {GateOrder::top_k_then_softmax, GateOrder::sigmoid_then_top_k}) {
      Routing<TestType, 5, 2> routing(order, 1);
      routing.logits = {0, low, low + TestType(std::log(3.0)), 5, -1};
      routing.bias = {0, 9, 9.5, 0, 0};
      routing.normalised = true;
      routing.run(device);
      routing.run_backward(device);
      CHECK(routing.experts == std::vector<Index>{2, 1});
      // The logits have been rounded to a unit in the last place of `low`.
      CHECK(close(double(routing.gates[0]), 0.75, sizeof(TestType) == 4 ? 2e-5 : 4e-14));
      CHECK(close(double(routing.gates[0] + routing.gates[1]), 1));
      for (const TestType gradient : routing.dlogits) CHECK(std::isfinite(gradient));
    }
  }
}

TEST_CASE("equal sums of score and bias go to the lowest expert, infinite biases decide", "[cpu][reference][router]") {
  cpu::Device device;
  reference::Device plain;
  const float high = INFINITY;
  const struct {
    std::vector<float> bias;
    std::vector<Index> experts;
  } cases[]{{{0, 0, 0, 0, 0}, {0, 1, 2}},
            {{0, 1, 0, 1, 1}, {1, 3, 4}},
            {{0, 0, -high, 0, high}, {4, 0, 1}},
            {{high, high, 0, 0, high}, {0, 1, 4}},
            {{-high, -high, -high, 1, -high}, {3, 0, 1}},
            {{-high, -high, -high, -high, -high}, {0, 1, 2}}};
  for (const GateOrder order : orders) {
    for (const auto& one : cases) {
      Routing<float, 5, 3> routing(order, 1);
      routing.logits.assign(5, 0.25f);
      routing.bias = one.bias;
      auto expected = routing;
      routing.run(device);
      expected.run(plain);
      CHECK(routing.experts == one.experts);
      CHECK(expected.experts == one.experts);
      for (const float gate : routing.gates) CHECK(std::isfinite(gate));
    }
  }
}

TEST_CASE("NaN and infinite logits and NaN biases give NaN, and infinite biases decide", "[cpu][reference][router]") {
  constexpr int E = 9, K = 3;
  cpu::Device device;
  reference::Device plain;
  for_all_gates([&](GateOrder order, bool normalised, double scale) {
    for (const float bad : {NAN, -NAN, INFINITY}) {
      for (int place = 0; place <= 2 * E; ++place) {  // a logit, all of a token's, a bias
        auto routing = biased<float, E, K>(order, normalised, scale, 3);
        for (int e = 0; e < E; ++e) {
          if (e == place || place == E) routing.logits[static_cast<std::size_t>(E + e)] = bad;
        }
        if (place > E) routing.bias[static_cast<std::size_t>(place - E - 1)] = bad;
        auto expected = routing;
        routing.run(device);
        expected.run(plain);
        for (const auto* result : {&routing, &expected}) {
          const bool comes_out = place <= E || std::isnan(bad);
          for (std::size_t k = 0; k < K; ++k) CHECK(std::isnan(result->gates[K + k]) == comes_out);
          for (Index t = 0; t < 3; ++t) {
            std::vector<Index> experts(result->experts.begin() + t * K, result->experts.begin() + (t + 1) * K);
            std::sort(experts.begin(), experts.end());
            CHECK((experts.front() >= 0 && experts.back() < E));
            CHECK(std::adjacent_find(experts.begin(), experts.end()) == experts.end());
          }
        }
      }
    }
  });
}

TEST_CASE("biased routing gives the same bits with 1, 2 and 3 threads", "[cpu][router]") {
  cpu::Device one;
  for_all_gates([&](GateOrder order, bool normalised, double scale) {
    auto expected = biased<float, 12, 3>(order, normalised, scale, 7001);
    expected.run(one);
    expected.run_backward(one);
    for (const int threads : {2, 3}) {
      cpu::Device many(Threads{threads});
      auto actual = biased<float, 12, 3>(order, normalised, scale, 7001);
      actual.run(many);
      actual.run_backward(many);
      CHECK(actual.experts == expected.experts);
      CHECK(actual.gates == expected.gates);
      CHECK(actual.load == expected.load);
      CHECK(actual.dlogits == expected.dlogits);
    }
  });
}
