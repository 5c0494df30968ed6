// Causal attention on the CPU against the naive reference, over windows, caches and groups of heads of awkward sizes.
#include "moe_mamba/reference/attention.hpp"

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "cpu/attention_problem.hpp"
#include "moe_mamba/cpu/attention_backward.hpp"
#include "support/catch.hpp"

using namespace test::attention;
using test::relative_error;

namespace {

template <class C>
constexpr double bound = std::is_same_v<C, float> ? 1e-5 : 1e-13;  // some hundred roundings

/// Forward and backward of the CPU against the reference in double, on the same values.
template <class C, int d>
void compare(Shape shape, AttentionHeads heads, Index read, bool with_state = true) {
  CAPTURE(sizeof(C), d, shape.batch, shape.length, heads.queries, heads.key_values, heads.context, read);
  const Problem<C, d> problem(shape, heads, read, 1);
  const Problem<double, d> exact(shape, heads, read, 1);
  cpu::Device device(Threads{2});
  reference::Device naive;
  const auto actual = problem.forward(device, with_state);
  const auto expected = exact.forward(naive, with_state);
  CHECK(relative_error(actual.y, expected.y) <= bound<C>);
  CHECK(relative_error(actual.log_sums, expected.log_sums) <= bound<C>);
  CHECK(relative_error(actual.state, expected.state) == 0);
  const auto gradients = problem.backward(device, actual, with_state);
  const auto expected_gradients = exact.backward(naive, expected, with_state);
  gradients.with(expected_gradients, [&](const char* name, const auto& a, const auto& b) {
    INFO(name);
    CHECK(relative_error(a, b) <= 10 * bound<C>);
  });
}

template <class C, int d>
void compare_shapes() {
  // Around the blocks of 128 keys and of 96 query rows, and the splits of 512 keys.
  for (const Index length : {0, 1, 2, 5, 9, 33, 130}) {
    for (const Index context : {1, 3, 128, 200}) {
      for (const Index read : {0, 1, 127, 1000}) compare<C, d>({2, length}, {2, 1, context}, read);
    }
  }
  compare<C, d>({1, 1}, {3, 3, 1100}, 5000);
  compare<C, d>({1, 3}, {2, 2, 600}, 511);
  compare<C, d>({2, 200}, {4, 2, 100}, 33, false);
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

}  // namespace

TEMPLATE_TEST_CASE("Attention computes what the formulas say, and its gradient", "[cpu][attention]", float, double) {
  compare_shapes<TestType, 1>();
  compare_shapes<TestType, 5>();
  compare_shapes<TestType, 16>();
  compare_shapes<TestType, 72>();
}

TEST_CASE("Many heads share keys and values", "[cpu][attention]") {
  compare<float, 16>({1, 7}, {130, 1, 20}, 9);
  compare<float, 16>({1, 1}, {130, 1, 20}, 30);
  compare<double, 8>({2, 40}, {12, 4, 30}, 17);
}

TEST_CASE("The number of threads does not change the bits", "[cpu][attention]") {
  for (const Index length : {1, 2, 300}) {
    const Problem<float, 24> problem({2, length}, {4, 2, 250}, 77, 3);
    cpu::Device one;
    const auto expected = problem.forward(one);
    const auto expected_gradients = problem.backward(one, expected);
    for (const int threads : {2, 3, 7}) {  // at seven, blocks are tasks instead of heads
      cpu::Device device(Threads{threads});
      const auto actual = problem.forward(device);
      CHECK(same_bits(actual.y, expected.y));
      CHECK(same_bits(actual.state, expected.state));
      CHECK(same_bits(actual.log_sums, expected.log_sums));
      problem.backward(device, actual).with(expected_gradients, [&](const char* name, const auto& a, const auto& b) {
        INFO(name << " on " << threads << " threads");
        CHECK(same_bits(a, b));
      });
    }
  }
}

TEST_CASE("A sequence in chunks equals the whole sequence, forward and backward, across the window's edge",
          "[cpu][attention]") {
  const Index length = 150, context = 37;
  const Problem<double, 5> problem({1, length}, {4, 2, context}, 20, 7);
  cpu::Device device(Threads{2});
  const auto whole = problem.forward(device);
  const auto gradients = problem.backward(device, whole);
  const std::vector<Index> lengths{1, 1, 20, 0, 37, 38, 1, 52};
  std::vector<Problem<double, 5>> parts;
  std::vector<Outputs<double>> outputs;
  auto state = problem.state;
  std::vector<double> y;
  Index first = 0;
  for (const Index steps : lengths) {
    parts.push_back(problem.part(0, first, steps));
    parts.back().state = state;
    outputs.push_back(parts.back().forward(device));
    state = outputs.back().state;
    y.insert(y.end(), outputs.back().y.begin(), outputs.back().y.end());
    first += steps;
  }
  CHECK(relative_error(y, whole.y) <= 1e-13);
  CHECK(state == whole.state);
  auto dstate = problem.dstate;
  std::vector<double> dk, dq;
  for (std::size_t i = parts.size(); i-- > 0;) {
    parts[i].dstate = dstate;
    const auto part = parts[i].backward(device, outputs[i]);
    dstate = part.dstate;
    dk.insert(dk.begin(), part.dk.begin(), part.dk.end());
    dq.insert(dq.begin(), part.dq.begin(), part.dq.end());
  }
  CHECK(relative_error(dk, gradients.dk) <= 1e-12);
  CHECK(relative_error(dq, gradients.dq) <= 1e-12);
  CHECK(relative_error(dstate, gradients.dstate) <= 1e-12);
}

TEST_CASE("A NaN reaches the steps that attend to it and no others", "[cpu][attention]") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const Index length : {4, 300}) {
    const Index context = length / 2, at = length / 3;
    for (const bool in_value : {false, true}) {
      Problem<float, 16> problem({1, length}, {2, 1, context}, 0, 11);
      (in_value ? problem.v : problem.k)[static_cast<std::size_t>(at * 19)] = nan;
      cpu::Device device;
      const auto actual = problem.forward(device);
      for (Index t = 0; t < length; ++t) {
        INFO("step " << t << " of " << length << ", NaN in " << at);
        CHECK(std::isnan(actual.y[static_cast<std::size_t>(t * 32)]) == (t >= at && t < at + context));
      }
    }
  }
}

TEST_CASE("A position is exact in float far beyond its mantissa", "[cpu][attention]") {
  float digits[position_digits] = {};
  Index position = 0;
  for (const Index step : {1, 1 << 20, 5, (1 << 24) + 1, 3}) {
    write_position(read_position(digits) + step, digits);
    position += step;
    CHECK(read_position(digits) == position);
  }
  const float odd[] = {std::numeric_limits<float>::quiet_NaN(), -3.0f};
  CHECK(read_position(odd) == 0);
}
