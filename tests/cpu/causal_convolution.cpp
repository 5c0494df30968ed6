#include "moe_mamba/cpu/causal_convolution.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "moe_mamba/reference/causal_convolution.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

using namespace moe_mamba;
using test::relative_error;

namespace {

template <class C>
struct Outputs {
  std::vector<C> y, state, saved;
};

template <class C>
struct Gradients {
  std::vector<C> dx, dweight, dbias, dstate;

  template <class Other, class F>
  void with(const Gradients<Other>& other, const F& f) const {
    f("dx", dx, other.dx), f("dweight", dweight, other.dweight), f("dbias", dbias, other.dbias);
    f("dstate", dstate, other.dstate);
  }
};

/// Inputs of a convolution; equal arguments give equal values for each C. Rows and states are padded.
template <class C, class S, int K>
struct Problem {
  Shape shape;
  Index channels, stride, state_stride;
  std::vector<C> x, state, dy, dstate;
  std::vector<S> weight, bias;
  bool biased = true;

  Problem(Shape s, Index e, std::uint64_t seed) : shape(s), channels(e), stride(e + 3), state_stride((K - 1) * e + 5) {
    x = test::uniform<C>(s.tokens() * stride, seed + 1, -3, 3);
    dy = test::uniform<C>(s.tokens() * stride, seed + 2);
    state = test::uniform<C>(s.batch * state_stride, seed + 3, -3, 3);
    dstate = test::uniform<C>(s.batch * state_stride, seed + 4);
    weight = test::uniform<S>(e * K, seed + 5);
    bias = test::uniform<S>(e, seed + 6);
  }

  MatrixView<const C> view(const std::vector<C>& values) const {
    return {values.data(), shape.tokens(), channels, stride};
  }

  template <class Device>
  Outputs<C> forward(Device& device, bool with_state = true) const {
    Outputs<C> out{test::poison<C>(shape.tokens() * channels), state,
                   test::poison<C>(shape.batch * (K - 1) * channels)};
    causal_convolution(
        device, CausalConvolution<C, S, K>{shape, view(x), weight.data(), biased ? bias.data() : nullptr,
                                           with_state ? StateView<C>{out.state.data(), state_stride} : StateView<C>{},
                                           out.saved.data(), matrix(out.y.data(), shape.tokens(), channels)});
    return out;
  }

  template <class Device>
  Gradients<C> backward(Device& device, const std::vector<C>& saved, bool with_state = true) const {
    Gradients<C> g{test::poison<C>(shape.tokens() * channels), test::uniform<C>(channels * K, 1),
                   test::uniform<C>(channels, 2), dstate};
    causal_convolution_backward(
        device, CausalConvolutionBackward<C, S, K>{
                    shape, view(x), weight.data(), biased ? bias.data() : nullptr, saved.data(), view(dy),
                    matrix(g.dx.data(), shape.tokens(), channels), g.dweight.data(), biased ? g.dbias.data() : nullptr,
                    with_state ? StateView<C>{g.dstate.data(), state_stride} : StateView<C>{}});
    return g;
  }

  /// Steps first … first + length - 1 of one sequence.
  Problem part(Index sequence, Index first, Index length) const {
    Problem p = *this;
    p.shape = {1, length};
    for (auto* rows : {&p.x, &p.dy}) {
      const auto begin = rows->begin() + (sequence * shape.length + first) * stride;
      *rows = std::vector<C>(begin, begin + length * stride);
    }
    for (auto* states : {&p.state, &p.dstate}) {
      const auto begin = states->begin() + sequence * state_stride;
      *states = std::vector<C>(begin, begin + state_stride);
    }
    return p;
  }
};

/// The CPU against the reference in double, on the same values.
template <class C, class S, int K>
void compare(Shape shape, Index channels, std::uint64_t seed) {
  CAPTURE(sizeof(C), sizeof(S), K, shape.batch, shape.length, channels, seed);
  const Problem<C, S, K> problem(shape, channels, seed);
  const Problem<double, S, K> exact(shape, channels, seed);
  cpu::Device device(Threads{2});
  reference::Device naive;
  const auto actual = problem.forward(device);
  const auto expected = exact.forward(naive);
  // A sum of K + 1 products and one silu: some units in the last place (1.2e-7, 2.2e-16) of the largest element. A
  // parameter's gradient is a sum over all tokens, whose error grows with the square root of their number.
  const double unit = std::is_same_v<C, double> ? 2.3e-16 : 1.2e-7;
  CHECK(relative_error(actual.y, expected.y) <= 8 * unit);
  CHECK(relative_error(actual.state, expected.state) == 0);
  CHECK(relative_error(actual.saved, expected.saved) == 0);
  problem.backward(device, actual.saved)
      .with(exact.backward(naive, expected.saved), [&](const char* name, const auto& value, const auto& precise) {
        CAPTURE(name);
        CHECK(relative_error(value, precise) <= (8 + 2 * std::sqrt(shape.tokens())) * unit);
      });
}

template <class C, class S, int K>
void compare_shapes() {
  const Index widths[] = {1, 2, 7, 8, 17, 33, 67};
  const Index lengths[] = {0, 1, 2, 3, 4, 5, 64, 131};
  for (std::uint64_t i = 0; i < 8; ++i) {
    compare<C, S, K>({1 + static_cast<Index>(i % 3), lengths[i]}, widths[(i * 3 + K) % 7], 100 * i);
  }
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  using Bits = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](T x, T y) { return std::bit_cast<Bits>(x) == std::bit_cast<Bits>(y); });
}

/// The chunks that end at `ends`: forward with the state carried over, backward with its gradient carried back.
template <int K>
void check_chunks(const std::vector<Index>& ends) {
  const Problem<double, double, K> whole({1, ends.back()}, 11, 5);
  cpu::Device device;
  const auto expected = whole.forward(device);
  const auto gradients = whole.backward(device, expected.saved);
  std::vector<Problem<double, double, K>> parts;
  std::vector<Outputs<double>> outputs;
  auto state = whole.state;
  std::vector<double> y, dx;
  for (std::size_t i = 0; i < ends.size(); ++i) {
    const Index first = i == 0 ? 0 : ends[i - 1];
    parts.push_back(whole.part(0, first, ends[i] - first));
    parts.back().state = state;
    outputs.push_back(parts.back().forward(device));
    state = outputs.back().state;
    y.insert(y.end(), outputs.back().y.begin(), outputs.back().y.end());
  }
  CHECK(same_bits(y, expected.y));
  CHECK(same_bits(state, expected.state));
  auto dstate = whole.dstate;
  std::vector<double> dweight = test::uniform<double>(11 * K, 1), dbias = test::uniform<double>(11, 2);
  for (std::size_t i = ends.size(); i-- > 0;) {
    parts[i].dstate = dstate;
    const auto g = parts[i].backward(device, outputs[i].saved);
    dstate = g.dstate;
    dx.insert(dx.begin(), g.dx.begin(), g.dx.end());
    const auto add = [](std::vector<double>& sum, const std::vector<double>& values, std::uint64_t seed) {
      const auto start = test::uniform<double>(static_cast<Index>(sum.size()), seed);
      for (std::size_t k = 0; k < sum.size(); ++k) sum[k] += values[k] - start[k];
    };
    add(dweight, g.dweight, 1);
    add(dbias, g.dbias, 2);
  }
  CHECK(relative_error(dx, gradients.dx) < 1e-13);
  CHECK(relative_error(dstate, gradients.dstate) < 1e-13);
  CHECK(relative_error(dweight, gradients.dweight) < 1e-13);
  CHECK(relative_error(dbias, gradients.dbias) < 1e-13);
}

}  // namespace

TEST_CASE("the causal convolution and its gradients equal the reference for all sizes", "[cpu][convolution]") {
  SECTION("1 tap") { compare_shapes<float, float, 1>(); }
  SECTION("2 taps") { compare_shapes<double, double, 2>(); }
  SECTION("4 taps, float") { compare_shapes<float, float, 4>(); }
  SECTION("4 taps, double") { compare_shapes<double, double, 4>(); }
  SECTION("4 taps, bfloat16 parameters") { compare_shapes<float, bfloat16, 4>(); }
  SECTION("7 taps") { compare_shapes<float, float, 7>(); }
}

TEMPLATE_TEST_CASE("a convolution without a bias is one with a bias of zero", "[cpu][reference][convolution]",
                   cpu::Device, reference::Device) {
  TestType device;
  for (const Shape shape : {Shape{2, 1}, Shape{1, 9}}) {
    for (const Index channels : {1, 8, 35}) {
      Problem<double, double, 3> with(shape, channels, 5), without = with;
      std::fill(with.bias.begin(), with.bias.end(), 0.0);
      without.biased = false;
      const auto outputs = without.forward(device);
      CHECK(outputs.y == with.forward(device).y);
      const auto gradients = without.backward(device, outputs.saved), expected = with.backward(device, outputs.saved);
      CHECK(gradients.dx == expected.dx);
      CHECK(gradients.dweight == expected.dweight);
      CHECK(gradients.dstate == expected.dstate);
    }
  }
}

TEST_CASE("the reference's gradients of the causal convolution equal finite differences", "[reference][convolution]") {
  constexpr int taps = 4;
  for (Index length : {2, 5}) {  // shorter and longer than the running state
    Problem<double, double, taps> problem({2, length}, 2, 11);
    reference::Device device;
    const Index e = problem.channels, t = problem.shape.tokens();
    const auto loss = [&] {
      const auto out = problem.forward(device);
      double sum = 0;
      for (Index row = 0; row < t; ++row) {
        for (Index k = 0; k < e; ++k) {
          sum += problem.view(problem.dy)(row, k) * out.y[static_cast<std::size_t>(row * e + k)];
        }
      }
      for (Index s = 0; s < 2; ++s) {
        for (Index i = 0; i < (taps - 1) * e; ++i) {
          const auto at = static_cast<std::size_t>(s * problem.state_stride + i);
          sum += problem.dstate[at] * out.state[at];
        }
      }
      return sum;
    };
    const auto g = problem.backward(device, problem.forward(device).saved);
    const auto check = [&](const char* name, std::vector<double>& x, const std::vector<double>& gradient,
                           const std::vector<double>& start, Index rows, Index columns, Index x_stride,
                           Index g_stride) {
      CAPTURE(name, length);
      std::vector<double> expected, actual;
      for (Index row = 0; row < rows; ++row) {
        for (Index column = 0; column < columns; ++column) {
          const auto at = static_cast<std::size_t>(row * g_stride + column);
          actual.push_back(gradient[at] - (start.empty() ? 0.0 : start[at]));
          expected.push_back(test::finite_difference(x[static_cast<std::size_t>(row * x_stride + column)], 1e-3, loss));
        }
      }
      CHECK(relative_error(actual, expected) < 1e-9);
    };
    check("x", problem.x, g.dx, {}, t, e, problem.stride, e);
    check("weight", problem.weight, g.dweight, test::uniform<double>(e * taps, 1), 1, e * taps, e, e);
    check("bias", problem.bias, g.dbias, test::uniform<double>(e, 2), 1, e, e, e);
    check("state", problem.state, g.dstate, {}, 2, (taps - 1) * e, problem.state_stride, problem.state_stride);
  }
}

TEST_CASE("chunks of a convolution give the bits of the whole, and their gradients add up to its",
          "[cpu][convolution]") {
  for (Index split = 0; split <= 17; ++split) {
    check_chunks<4>({split, 17});
    check_chunks<7>({split, 17});
  }
  check_chunks<4>({1, 2, 3, 4, 5, 6, 7});
  check_chunks<7>({1, 2, 3, 4, 5, 6, 7, 8, 9});
  check_chunks<7>({0, 2, 2, 5, 9, 9});
  check_chunks<1>({3, 7});
  check_chunks<4>({1, 64, 50'000, 100'003});
}

TEST_CASE("neither threads nor other sequences of the batch change a bit of the convolution", "[cpu][convolution]") {
  const Problem<float, float, 4> batch({3, 37}, 203, 41);
  cpu::Device one;
  const auto expected = batch.forward(one);
  const auto gradients = batch.backward(one, expected.saved);
  for (int threads : {2, 3}) {
    cpu::Device device(Threads{threads});
    CHECK(same_bits(batch.forward(device).y, expected.y));
    CHECK(same_bits(batch.forward(device).state, expected.state));
    batch.backward(device, expected.saved).with(gradients, [](const char* name, const auto& a, const auto& b) {
      CAPTURE(name);
      CHECK(same_bits(a, b));
    });
  }
  for (Index s = 0; s < 3; ++s) {
    const auto single = batch.part(s, 0, 37);
    const auto alone = single.forward(one);
    const auto part = [&](const std::vector<float>& all, Index size) {
      return std::vector<float>(all.begin() + s * size, all.begin() + (s + 1) * size);
    };
    CHECK(same_bits(part(expected.y, 37 * 203), alone.y));
    CHECK(same_bits(part(expected.state, batch.state_stride), alone.state));
    const auto alone_gradients = single.backward(one, alone.saved);
    CHECK(same_bits(part(gradients.dx, 37 * 203), alone_gradients.dx));
    CHECK(same_bits(part(gradients.dstate, batch.state_stride), alone_gradients.dstate));
  }
}

TEST_CASE("a missing state of the convolution counts as zero", "[cpu][convolution]") {
  Problem<double, double, 4> problem({2, 9}, 5, 61);
  std::fill(problem.state.begin(), problem.state.end(), 0.0);
  std::fill(problem.dstate.begin(), problem.dstate.end(), 0.0);
  cpu::Device device;
  const auto with = problem.forward(device), without = problem.forward(device, false);
  CHECK(same_bits(with.y, without.y));
  CHECK(same_bits(with.saved, without.saved));
  CHECK(same_bits(without.state, problem.state));
  const auto gradients = problem.backward(device, with.saved, false);
  CHECK(same_bits(gradients.dx, problem.backward(device, with.saved).dx));
  CHECK(same_bits(gradients.dstate, problem.dstate));
}

TEST_CASE("NaN in an input of the convolution reaches the steps that read it, and no others", "[cpu][convolution]") {
  constexpr Index length = 12, channels = 11, at_step = 5, at_channel = 9;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  cpu::Device device;
  const auto check = [&](const char* name, const auto& poison, Index first, Index last) {
    CAPTURE(name);
    Problem<float, float, 4> problem({1, length}, channels, 71);
    poison(problem);
    const auto y = problem.forward(device).y;
    Index wrong = 0;
    for (Index t = 0; t < length; ++t) {
      for (Index e = 0; e < channels; ++e) {
        const bool expected = t >= first && t <= last && e == at_channel;
        wrong += std::isnan(y[static_cast<std::size_t>(t * channels + e)]) != expected;
      }
    }
    CHECK(wrong == 0);
  };
  using Case = Problem<float, float, 4>;
  check(
      "x", [&](Case& p) { p.x[static_cast<std::size_t>(at_step * p.stride + at_channel)] = nan; }, at_step,
      at_step + 3);
  check(
      "weight", [&](Case& p) { p.weight[at_channel * 4 + 1] = nan; }, 0, length - 1);
  check(
      "bias", [&](Case& p) { p.bias[at_channel] = nan; }, 0, length - 1);
  check(
      "state", [&](Case& p) { p.state[2 * channels + at_channel] = nan; }, 0, 2);
}

TEST_CASE("packed sequences are convolved alike with and without memory for their states", "[cpu][convolution]") {
  constexpr Index channels = 5;
  const std::vector<Index> lengths{4, 0, 9, 1};
  const Shape shape = Shape::packed(lengths);
  const auto x = test::uniform<float>(shape.tokens() * channels, 81), weight = test::uniform<float>(channels * 4, 82),
             bias = test::uniform<float>(channels, 83);
  const auto run = [&](auto& device, float* saved) {
    std::vector<float> y(x.size());
    causal_convolution(device, CausalConvolution<float, float, 4>{.shape = shape,
                                                                  .x = {x.data(), shape.tokens(), channels, channels},
                                                                  .weight = weight.data(),
                                                                  .bias = bias.data(),
                                                                  .state = {},
                                                                  .saved_state = saved,
                                                                  .y = {y.data(), shape.tokens(), channels, channels}});
    return y;
  };
  std::vector<float> saved(lengths.size() * 3 * channels);
  cpu::Device device;
  reference::Device plain;
  CHECK(same_bits(run(device, nullptr), run(device, saved.data())));
  CHECK(same_bits(run(plain, nullptr), run(plain, saved.data())));
}
