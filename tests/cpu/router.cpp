#include <algorithm>
#include <vector>

#include "cpu/routing.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;
using test::close;
using test::orders;
using test::Routing;
using test::Sizes;

TEMPLATE_TEST_CASE("routing and its gradient agree with the reference", "[cpu][router]", (Sizes<1, 1>), (Sizes<2, 1>),
                   (Sizes<8, 2>), (Sizes<13, 4>), (Sizes<33, 33>)) {
  constexpr int E = TestType::E, K = TestType::K;
  cpu::Device device;
  reference::Device plain;
  const auto check = [&](auto scalar, double tolerance) {
    using C = decltype(scalar);
    for (const GateOrder order : orders) {
      for (const Index tokens : {0, 1, 2, 63, 300, 5000}) {
        CAPTURE(E, K, tokens, tolerance);
        Routing<C, E, K> actual(order, tokens);
        Routing<double, E, K> expected(order, tokens);
        actual.run(device);
        expected.run(plain);
        CHECK(actual.experts == expected.experts);
        CHECK(actual.load == expected.load);
        CHECK(test::relative_error(actual.probabilities, expected.probabilities) <= tolerance);
        CHECK(test::relative_error(actual.log_sum_exp, expected.log_sum_exp) <= tolerance);
        CHECK(test::relative_error(actual.gates, expected.gates) <= tolerance);
        CHECK(test::relative_error(actual.mean_probability, expected.mean_probability) <= tolerance);
        CHECK(actual.reported_balance == Approx(tokens == 0 ? 0.0 : expected.even()).epsilon(tolerance).margin(1e-300));
        CHECK(expected.reported_balance == Approx(tokens == 0 ? 0.0 : expected.even()).epsilon(1e-12).margin(1e-300));
        CHECK(std::abs(actual.entropy - expected.entropy) <= tolerance * std::max(1.0, expected.entropy));
        CHECK(std::abs(actual.square - expected.square) <= tolerance * std::max(1.0, expected.square));
        if (tokens == 0) CHECK((actual.entropy == 0 && actual.square == 0 && actual.mean_probability[0] == 0));

        actual.run_backward(device);
        expected.run_backward(plain);
        // With one expert, p = 1, only the z-loss has a gradient: compare with the incoming one, which cancels.
        double error = 0, magnitude = 1;
        for (std::size_t i = 0; i < actual.dlogits.size(); ++i) {
          const double difference = std::abs(double(actual.dlogits[i]) - expected.dlogits[i]);
          error = std::isnan(error) || difference <= error ? error : difference;
          if (E > 1) magnitude = std::max(i == 0 ? 0.0 : magnitude, std::abs(expected.dlogits[i]));
        }
        CHECK(error <= 4 * tolerance * magnitude);
      }
    }
  };
  // The exponential is good to 1.3e-7 and the difference before it to 6e-8 times its size, 6; then sum, division and
  // product. Plain sums over 5000 tokens in double lose up to 5e-13.
  check(float{}, 1e-6);
  check(double{}, 1e-12);
}

TEMPLATE_TEST_CASE("the reference router's gradient agrees with finite differences", "[reference][router]",
                   (Sizes<1, 1>), (Sizes<4, 1>), (Sizes<5, 2>), (Sizes<3, 3>)) {
  constexpr int E = TestType::E, K = TestType::K;
  reference::Device device;
  for (const GateOrder order : orders) {
    Routing<double, E, K> routing(order, 4);
    test::check_gradient(routing, device);
  }
}

TEST_CASE("the balance loss has its closed form", "[cpu][router]") {
  cpu::Device device;
  SECTION("even routing gives one, whatever K") {
    Routing<double, 4, 1> one(GateOrder::softmax_then_top_k, 8);
    Routing<double, 4, 2> two(GateOrder::top_k_then_softmax, 8);
    for (Index t = 0; t < 8; ++t) {
      for (Index e = 0; e < 4; ++e) {
        const auto at = static_cast<std::size_t>(t * 4 + e);
        one.logits[at] = t % 4 == e ? 2.0 : 0.5;
        two.logits[at] = t % 4 == e || (t + 1) % 4 == e ? 2.0 : 0.5;
      }
    }
    one.run(device);
    two.run(device);
    CHECK(close(one.even(), 1, 1e-14));
    CHECK(close(two.even(), 1, 1e-14));
  }
  SECTION("all to one expert gives E times its mean probability") {
    Routing<double, 4, 1> routing(GateOrder::softmax_then_top_k, 5);
    for (std::size_t i = 0; i < 20; ++i) routing.logits[i] = i % 4 == 2 ? 50.0 : 0.0;
    routing.run(device);
    CHECK(routing.load == std::vector<double>{0, 0, 5, 0});
    CHECK(close(routing.even(), 4, 1e-14));
  }
  SECTION("two experts by hand") {
    // Odds 3 : 1, 3 : 1 and 1 : 4: loads 2 and 1, mean probabilities 17/30 and 13/30.
    Routing<double, 2, 1> routing(GateOrder::softmax_then_top_k, 3);
    routing.logits = {std::log(3.0), 0, std::log(3.0), 0, 0, std::log(4.0)};
    routing.run(device);
    CHECK(routing.experts == std::vector<Index>{0, 0, 1});
    CHECK(close(routing.gates[0], 0.75));
    CHECK(close(routing.gates[2], 0.8));
    CHECK(close(routing.mean_probability[0], 17.0 / 30));
    CHECK(close(routing.even(), 2 * (2.0 / 3 * 17 / 30 + 1.0 / 3 * 13 / 30)));
    const double entropy1 = -0.75 * std::log(0.75) - 0.25 * std::log(0.25);
    const double entropy2 = -0.8 * std::log(0.8) - 0.2 * std::log(0.2);
    CHECK(close(routing.entropy, (2 * entropy1 + entropy2) / 3));
    CHECK(close(routing.square, (2 * std::pow(std::log(4.0), 2) + std::pow(std::log(5.0), 2)) / 3));
  }
}

TEST_CASE("ties go to the lowest expert", "[cpu][reference][router]") {
  cpu::Device device;
  reference::Device plain;
  Routing<float, 19, 3> routing(GateOrder::top_k_then_softmax, 4), expected = routing;
  routing.logits.assign(76, 0.5f);
  for (const std::size_t e : {4u, 7u, 11u, 18u}) routing.logits[19 + e] = 2.0f;  // four tied for the best
  for (const std::size_t e : {3u, 17u}) routing.logits[38 + e] = 2.0f;  // two tied for the best, the rest equal
  for (std::size_t e = 0; e < 19; ++e) routing.logits[57 + e] = e == 9 ? 0.0f : -INFINITY;
  expected.logits = routing.logits;
  routing.run(device);
  expected.run(plain);
  CHECK(routing.experts == std::vector<Index>{0, 1, 2, 4, 7, 11, 3, 17, 0, 9, 0, 1});
  CHECK(expected.experts == routing.experts);
  CHECK(close(routing.entropy, expected.entropy));
  for (std::size_t i = 0; i < 3; ++i) CHECK(close(routing.gates[i], 1.0 / 3));
  CHECK(routing.gates[9] == 1);
  CHECK(routing.gates[10] == 0);
}

TEMPLATE_TEST_CASE("top-k over all experts is a permutation, best first, and gates add up to one", "[cpu][router]",
                   float, double) {
  cpu::Device device;
  for (const GateOrder order : orders) {
    Routing<TestType, 11, 11> routing(order, 50);
    routing.run(device);
    for (Index t = 0; t < 50; ++t) {
      std::vector<Index> experts(routing.experts.begin() + t * 11, routing.experts.begin() + (t + 1) * 11);
      for (std::size_t k = 1; k < 11; ++k) {
        CHECK(routing.gates[static_cast<std::size_t>(t * 11) + k] <=
              routing.gates[static_cast<std::size_t>(t * 11) + k - 1]);
      }
      double sum = 0;
      for (Index k = 0; k < 11; ++k) sum += double(routing.gates[static_cast<std::size_t>(t * 11 + k)]);
      if (order != GateOrder::sigmoid_then_top_k) CHECK(close(sum, 1, 1e-6));
      std::sort(experts.begin(), experts.end());
      for (Index e = 0; e < 11; ++e) CHECK(experts[static_cast<std::size_t>(e)] == e);
    }
    CHECK(routing.load == std::vector<double>(11, 50.0));
  }
}

TEMPLATE_TEST_CASE("NaN and infinite logits give NaN, with distinct experts in range", "[cpu][router]", (Sizes<1, 1>),
                   (Sizes<5, 2>), (Sizes<16, 16>), (Sizes<33, 3>)) {
  constexpr int E = TestType::E, K = TestType::K;
  cpu::Device device;
  reference::Device plain;
  for (const float bad : {NAN, -NAN, INFINITY}) {
    for (const GateOrder order : orders) {
      for (int place = 0; place <= E; ++place) {  // the last time, in all places
        Routing<float, E, K> routing(order, 3);
        for (int e = 0; e < E; ++e) {
          if (e == place || place == E) routing.logits[static_cast<std::size_t>(E + e)] = bad;
        }
        auto expected = routing;
        routing.run(device);
        expected.run(plain);
        for (const auto* result : {&routing, &expected}) {
          for (std::size_t k = 0; k < K; ++k) CHECK(std::isnan(result->gates[K + k]));
          for (std::size_t e = 0; e < E; ++e) CHECK(std::isnan(result->probabilities[E + e]));
          for (std::size_t e = 0; e < E; ++e) CHECK_FALSE(std::isnan(result->probabilities[2 * E + e]));
          CHECK(std::isnan(result->entropy));
          std::vector<Index> experts(result->experts.begin() + K, result->experts.begin() + 2 * K);
          std::sort(experts.begin(), experts.end());
          CHECK(experts.front() >= 0);
          CHECK(experts.back() < E);
          CHECK(std::adjacent_find(experts.begin(), experts.end()) == experts.end());
        }
      }
    }
  }
}

TEST_CASE("sigmoid gates by hand", "[cpu][reference][router]") {
  cpu::Device device;
  reference::Device plain;
  Routing<double, 3, 2> routing(GateOrder::sigmoid_then_top_k, 1);
  routing.logits = {std::log(3.0), -40, std::log(0.25)};
  routing.balance = routing.z = 0;
  auto expected = routing;
  routing.run(device);
  routing.run_backward(device);
  expected.run(plain);
  expected.run_backward(plain);
  for (const auto* result : {&routing, &expected}) {
    CHECK(result->experts == std::vector<Index>{0, 2});
    CHECK(close(result->gates[0], 0.75, 1e-15));
    CHECK(close(result->gates[1], 0.2, 1e-15));
    CHECK(close(result->dlogits[0], result->dgates[0] * 0.75 * 0.25, 1e-14));
    CHECK(close(result->dlogits[2], result->dgates[1] * 0.2 * 0.8, 1e-14));
    CHECK(result->dlogits[1] == 0);
  }
}

TEST_CASE("large logits do not overflow", "[cpu][router]") {
  cpu::Device device;
  Routing<float, 8, 2> routing(GateOrder::softmax_then_top_k, 2);
  routing.logits = {1e30f, 0, 0, 0, 0, 0, 0, 0, -1e30f, -1e30f, 5, 5, -3e38f, -200, -1000, -90};
  routing.run(device);
  CHECK(routing.probabilities[0] == 1);
  CHECK(routing.probabilities[1] == 0);
  CHECK(close(routing.probabilities[10], 0.5));
  CHECK(close(routing.log_sum_exp[1], 5 + std::log(2.0)));
  CHECK(close(routing.entropy, std::log(2.0) / 2));
}

TEST_CASE("routing gives the same bits with 1, 2 and 3 threads", "[cpu][router]") {
  cpu::Device one;
  for (const GateOrder order : orders) {
    Routing<float, 12, 3> expected(order, 7001);
    expected.run(one);
    expected.run_backward(one);
    for (const int threads : {2, 3}) {
      cpu::Device many(Threads{threads});
      Routing<float, 12, 3> actual(order, 7001);
      actual.run(many);
      actual.run_backward(many);
      CHECK(actual.experts == expected.experts);
      CHECK(actual.probabilities == expected.probabilities);
      CHECK(actual.gates == expected.gates);
      CHECK(actual.load == expected.load);
      CHECK(actual.mean_probability == expected.mean_probability);
      CHECK(actual.entropy == expected.entropy);
      CHECK(actual.square == expected.square);
      CHECK(actual.dlogits == expected.dlogits);
    }
  }
}

TEST_CASE("tokens with masked targets are routed, but not counted", "[cpu][reference][router]") {
  constexpr int E = 8, K = 2;
  cpu::Device device(Threads{2});
  reference::Device plain;
  for (const GateOrder order : orders) {
    for (const Index tokens : {1, 2, 33, 500}) {
      Routing<double, E, K> masked(order, tokens), only(order, (tokens + 1) / 2), unbalanced(order, tokens);
      for (Index t = 0; t < tokens; ++t) masked.targets.push_back(t % 2 == 0 ? Token{3} : masked_target);
      // The tokens that count, alone; and all of them without the losses of the router.
      for (Index t = 0; t < tokens; t += 2) {
        std::copy_n(masked.logits.begin() + t * E, E, only.logits.begin() + t / 2 * E);
        std::copy_n(masked.dgates.begin() + t * K, K, only.dgates.begin() + t / 2 * K);
      }
      unbalanced.balance = unbalanced.z = 0;
      auto expected = masked;
      masked.run(device);
      masked.run_backward(device);
      expected.run(plain);
      expected.run_backward(plain);
      only.run(device);
      only.run_backward(device);
      unbalanced.run(device);
      unbalanced.run_backward(device);
      for (const auto* result : {&masked, &expected}) {
        CHECK(result->counted == static_cast<double>((tokens + 1) / 2));
        CHECK(result->load == only.load);
        CHECK(test::relative_error(result->mean_probability, only.mean_probability) <= 1e-14);
        CHECK(close(result->entropy, only.entropy, 1e-13));
        CHECK(close(result->square, only.square, 1e-13));
        CHECK(close(result->reported_balance, only.reported_balance, 1e-13));
        CHECK(result->experts == unbalanced.experts);
        CHECK(test::relative_error(result->gates, unbalanced.gates) <= 1e-14);
        std::vector<double> dlogits = unbalanced.dlogits;
        for (Index t = 0; t < tokens; t += 2) {
          std::copy_n(only.dlogits.begin() + t / 2 * E, E, dlogits.begin() + t * E);
        }
        CHECK(test::relative_error(result->dlogits, dlogits) <= 1e-13);
      }
    }
  }
}
