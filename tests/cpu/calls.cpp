// Single operations on the caller's arrays: those of ops/, with checked sizes.
#include "moe_mamba/cpu/calls.hpp"

#include <vector>

#include "support/catch.hpp"
#include "support/data.hpp"

using namespace moe_mamba;

TEMPLATE_TEST_CASE("a scan in one call equals that of its argument struct, with checked sizes", "[cpu]", float,
                   double) {
  using C = TestType;
  constexpr int N = 5;
  const Index batch = 2, length = 37, channels = 19, tokens = batch * length;
  const auto u = test::uniform<C>(tokens * channels, 1), delta = test::uniform<C>(tokens * channels, 2),
             z = test::uniform<C>(tokens * channels, 3), b = test::uniform<C>(tokens * N, 4),
             c = test::uniform<C>(tokens * N, 5), bias = test::uniform<C>(channels, 6),
             a_log = test::uniform<C>(channels * N, 7), d = test::uniform<C>(channels, 8);
  cpu::Device device;
  auto states = test::uniform<C>(batch * channels * N, 9), expected_states = states;
  std::vector<C> y(u.size()), expected(u.size());
  const cpu::ScanInputs<C> inputs{u, delta, b, c, z, bias, a_log, d};
  cpu::selective_scan<C, N>(device, {batch, length}, inputs, states, y);
  selective_scan(device, SelectiveScan<C, C, N>{{batch, length},
                                                matrix(u.data(), tokens, channels),
                                                matrix(delta.data(), tokens, channels),
                                                matrix(b.data(), tokens, Index{N}),
                                                matrix(c.data(), tokens, Index{N}),
                                                matrix(z.data(), tokens, channels),
                                                bias.data(),
                                                a_log.data(),
                                                d.data(),
                                                {expected_states.data(), channels * N},
                                                nullptr,
                                                matrix(expected.data(), tokens, channels),
                                                {}});
  CHECK(y == expected);
  CHECK(states == expected_states);

  const auto refused = [&](auto change, const char* message) {
    cpu::ScanInputs<C> wrong = inputs;
    change(wrong);
    CHECK_THROWS_WITH((cpu::selective_scan<C, N>(device, {batch, length}, wrong, states, y)), test::Contains(message));
  };
  refused([&](auto& wrong) { wrong.b = wrong.b.first(3); }, "b is 3; allowed: 370 numbers");
  refused([&](auto& wrong) { wrong.u = {}; }, "u is 0; allowed: 1406 numbers");
  refused([&](auto& wrong) { wrong.a_log = wrong.a_log.first(1); }, "a_log is 1; allowed: 95 numbers");
  CHECK_THROWS_WITH((cpu::selective_scan<C, N>(device, {batch, length}, inputs, std::span(states).first(2), y)),
                    test::Contains("states is 2; allowed: 190 numbers"));
}

TEST_CASE("a norm in one call normalises any number of rows, in place too", "[cpu]") {
  const Index rows = 700, columns = 13;
  const auto x = test::uniform<float>(rows * columns, 1), gain = test::uniform<float>(columns, 2);
  cpu::Device device;
  std::vector<float> y(x.size()), expected(x.size()), inverse(static_cast<std::size_t>(rows)), in_place = x;
  cpu::rms_norm<float>(device, x, gain, 1e-5, y);
  cpu::rms_norm<float>(device, in_place, gain, 1e-5, in_place);
  rms_norm(device, matrix(x.data(), rows, columns), gain.data(), 1e-5, matrix(expected.data(), rows, columns),
           inverse.data());
  CHECK(y == expected);
  CHECK(in_place == expected);
  CHECK_THROWS_WITH(cpu::rms_norm<float>(device, std::span(x).first(14), gain, 1e-5, y),
                    test::Contains("x is 14; allowed: a multiple of 13 numbers"));
}

TEST_CASE("a router in one call reports even loads, and refuses wrong sizes", "[cpu]") {
  const std::vector<double> logits(6 * 3, 1.0);
  std::vector<double> probabilities(logits.size()), lse(6), gates(12), load(3);
  std::vector<Index> experts(12);
  cpu::Device device;
  const cpu::RouterOutputs<double> outputs{probabilities, lse, experts, gates, load};
  const auto means = cpu::route<double, 3, 2>(device, logits, GateOrder::softmax_then_top_k, outputs);
  CHECK(means.entropy == Approx(std::log(3.0)).epsilon(1e-14));
  CHECK(means.square_log_sum_exp == Approx(std::pow(1 + std::log(3.0), 2)).epsilon(1e-14));
  CHECK(means.balance == Approx(1).epsilon(1e-14));
  CHECK(load == std::vector<double>{6, 6, 0});
  CHECK_THROWS_WITH(
      (cpu::route<double, 3, 2>(device, std::span(logits).first(17), GateOrder::softmax_then_top_k, outputs)),
      test::Contains("logits is 17; allowed: 18 numbers"));
}

TEST_CASE("sizes beyond any memory are refused, even if their product overflows an integer", "[cpu]") {
  cpu::Device device;
  std::vector<float> one(1 << 24);
  const auto scan = [&](Shape shape, std::size_t channels) {
    const auto some = std::span<const float>(one).first(channels);
    cpu::selective_scan<float, 1>(device, shape, {{}, {}, {}, {}, {}, some, some, some}, {}, {});
  };
  for (const Index exponent : {21, 31, 32, 33, 40, 41, 52, 62}) {
    const Index huge = Index{1} << exponent;
    CHECK_THROWS_AS(scan({huge, huge}, 1), std::invalid_argument);
    CHECK_THROWS_AS(scan({1, huge}, 1 << 12), std::invalid_argument);
    CHECK_THROWS_AS(scan({huge, 1}, 1 << 12), std::invalid_argument);
  }
  CHECK_THROWS_WITH(scan({Index{1} << 33, Index{1} << 33}, 1),
                    "shape.tokens() is more than 2^40; allowed: 2^40 or fewer");
  CHECK_THROWS_AS(scan({Index{1} << 40, 1}, 1 << 24), std::invalid_argument);  // 2^64 numbers
  CHECK_NOTHROW(scan({0, 5}, 3));
  CHECK_NOTHROW(scan({5, 0}, 3));
}

TEST_CASE("single operations occupy their device: a second concurrent one is refused", "[cpu]") {
  cpu::Device device;
  std::vector<float> x(12, 1), gain(3, 1), y(12, 7), lse(4), probabilities(12), gates(4), untouched(12, 7);
  std::vector<Index> experts(4);
  std::vector<double> load(3);
  const auto scan = [&] {
    cpu::selective_scan<float, 1>(device, {4, 1}, {x, x, lse, lse, x, gain, gain, gain}, {}, y);
  };
  const auto norm = [&] { cpu::rms_norm<float>(device, x, gain, 1e-5, y); };
  const auto route = [&] {
    cpu::route<float, 3, 1>(device, x, GateOrder::softmax_then_top_k, {probabilities, lse, experts, gates, load});
  };
  {
    const ExclusiveCall other(device.in_use(), "device");
    CHECK_THROWS_WITH(scan(), test::Contains("the device is in the middle of another call"));
    CHECK_THROWS_WITH(norm(), test::Contains("the device is in the middle of another call"));
    CHECK_THROWS_WITH(route(), test::Contains("the device is in the middle of another call"));
    CHECK(y == untouched);
    CHECK(probabilities == std::vector<float>(12));
  }
  CHECK_THROWS_AS(cpu::rms_norm<float>(device, x, {}, 1e-5, y), std::invalid_argument);  // ends its call as well
  CHECK_NOTHROW(scan());
  CHECK_NOTHROW(norm());
  CHECK_NOTHROW(route());
}
