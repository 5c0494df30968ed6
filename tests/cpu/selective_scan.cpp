#include "moe_mamba/reference/selective_scan.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "cpu/selective_scan_problem.hpp"
#include "support/catch.hpp"

using namespace test::scan;
using test::relative_error;

namespace {

/// The scan in plain loops in C: its error sets the tolerance for float.
template <class C, class S, int N>
void plain(const Problem<C, S, N>& p, Outputs<C>& out, Gradients<C>& g) {
  const Index e = p.channels, length = p.shape.length, tokens = p.shape.tokens();
  out = {std::vector<C>(static_cast<std::size_t>(tokens * e)), p.state, {}};
  g = {out.y,
       out.y,
       out.y,
       std::vector<C>(static_cast<std::size_t>(tokens * N)),
       std::vector<C>(static_cast<std::size_t>(tokens * N)),
       test::uniform<C>(e, 1),
       test::uniform<C>(e * N, 2),
       test::uniform<C>(e, 3),
       p.dstate};
  const auto at = [](std::vector<C>& v, Index i) -> C& { return v[static_cast<std::size_t>(i)]; };
  for (Index s = 0; s < p.shape.batch; ++s) {
    for (Index k = 0; k < e; ++k) {
      std::vector<C> h, decay;
      C a[N];
      for (int n = 0; n < N; ++n) {
        a[n] = -std::exp(static_cast<C>(p.a_log[static_cast<std::size_t>(k * N + n)]));
        h.push_back(at(out.state, s * p.state_stride + n * e + k));
      }
      const C bias = static_cast<C>(p.bias[static_cast<std::size_t>(k)]);
      const C d = static_cast<C>(p.d[static_cast<std::size_t>(k)]);
      std::vector<C> sums;
      for (Index t = 0; t < length; ++t) {
        const Index row = s * length + t;
        const C step = softplus(p.wide(p.delta)(row, k) + bias), u = p.wide(p.u)(row, k);
        C sum = d * u;
        for (int n = 0; n < N; ++n) {
          decay.push_back(std::exp(step * a[n]));
          h.push_back(decay.back() * at(h, t * N + n) + step * u * p.narrow(p.b)(row, n));
          sum += p.narrow(p.c)(row, n) * h.back();
        }
        sums.push_back(sum);
        at(out.y, row * e + k) = sum * silu(p.wide(p.z)(row, k));
      }
      for (int n = 0; n < N; ++n) at(out.state, s * p.state_stride + n * e + k) = at(h, length * N + n);
      for (Index t = length - 1; t >= 0; --t) {
        const Index row = s * length + t;
        const C x = p.wide(p.delta)(row, k) + bias, step = softplus(x), u = p.wide(p.u)(row, k);
        const C dy = p.wide(p.dy)(row, k), dp = dy * silu(p.wide(p.z)(row, k));
        C du = d * dp, dstep = 0;
        for (int n = 0; n < N; ++n) {
          C& carried = at(g.dstate, s * p.state_stride + n * e + k);
          const C b = p.narrow(p.b)(row, n), dh = p.narrow(p.c)(row, n) * dp + carried;
          at(g.dc, row * N + n) += dp * at(h, (t + 1) * N + n);
          at(g.db, row * N + n) += dh * step * u;
          du += step * dh * b;
          carried = dh * at(decay, t * N + n);
          dstep += dh * u * b + carried * at(h, t * N + n) * a[n];
          at(g.da_log, k * N + n) += carried * at(h, t * N + n) * step * a[n];
        }
        at(g.du, row * e + k) = du;
        at(g.ddelta, row * e + k) = dstep * sigmoid(x);
        at(g.dz, row * e + k) = dy * at(sums, t) * silu_derivative(p.wide(p.z)(row, k));
        at(g.dbias, k) += dstep * sigmoid(x);
        at(g.dd, k) += dp * u;
      }
    }
  }
}

/// Forward and backward of the CPU against the reference in double, on the same values.
template <class C, class S, int N>
void compare(Shape shape, Index channels, std::uint64_t seed, double low = -4, double high = 1) {
  CAPTURE(sizeof(C), sizeof(S), N, shape.batch, shape.length, channels, seed);
  const Problem<C, S, N> problem(shape, channels, seed, low, high);
  const Problem<double, S, N> exact(shape, channels, seed, low, high);
  cpu::Device device(Threads{2});
  reference::Device naive;
  const auto actual = problem.forward(device);
  const auto expected = exact.forward(naive);
  const auto gradients = problem.backward(device, actual.checkpoints);
  const auto expected_gradients = exact.backward(naive, expected.checkpoints);
  // Double: 1e-12 is some thousand rounding errors, as many as there are in a sum. Float: three times the error of
  // plain loops in float, plus, as that may be small by chance, some 8 units in the last place of the largest element,
  // and for the gradients of parameters, which are sums over all tokens, a term that grows with the square root of
  // their number.
  Outputs<C> simple;
  Gradients<C> simple_gradients;
  plain(problem, simple, simple_gradients);
  const auto close = [&](const std::string& name, const auto& value, const auto& plain_value, const auto& exact_value) {
    CAPTURE(name);
    const bool parameter = name == "dbias" || name == "da_log" || name == "dd";
    const double units = 8 + (parameter ? 2 * std::sqrt(static_cast<double>(shape.tokens())) : 0.0);
    const double bound =
        std::is_same_v<C, double> ? 1e-12 : 3 * relative_error(plain_value, exact_value) + units * 1.2e-7;
    CHECK(relative_error(value, exact_value) <= bound);
  };
  close("y", actual.y, simple.y, expected.y);
  close("state", actual.state, simple.state, expected.state);
  CHECK(relative_error(actual.checkpoints, expected.checkpoints) <= (std::is_same_v<C, double> ? 1e-12 : 2e-5));
  std::vector<std::vector<C>> plain_values;
  simple_gradients.with(simple_gradients, [&](const char*, const auto& v, const auto&) { plain_values.push_back(v); });
  std::size_t index = 0;
  gradients.with(expected_gradients, [&](const char* name, const auto& value, const auto& exact_value) {
    close(name, value, plain_values[index++], exact_value);
  });
}

template <class C, class S, int N>
void compare_shapes() {
  const Index widths[] = {1, 2, 7, 8, 17, 33};
  const Index lengths[] = {0, 1, 2, 63, 64, 65, 127, 130};
  for (std::uint64_t i = 0; i < 8; ++i) {
    const Index batch = 1 + static_cast<Index>(i % 3);
    compare<C, S, N>({batch, lengths[i]}, widths[(i * 5 + N) % 6], 100 * i);
  }
}

}  // namespace

TEST_CASE("the selective scan and its gradients equal the reference for all sizes", "[cpu][scan]") {
  SECTION("double, 3 states") { compare_shapes<double, double, 3>(); }
  SECTION("double, 16 states") { compare_shapes<double, double, 16>(); }
  SECTION("float, 1 state") { compare_shapes<float, float, 1>(); }
  SECTION("float, 3 states") { compare_shapes<float, float, 3>(); }
  SECTION("float, 16 states") { compare_shapes<float, float, 16>(); }
  SECTION("float, 64 states") { compare<float, float, 64>({2, 127}, 9, 2); }
  SECTION("float, several tasks of channels") { compare<float, float, 3>({2, 66}, 301, 3); }
  SECTION("bfloat16 parameters") { compare_shapes<float, bfloat16, 16>(); }
}

TEST_CASE("very large and very small steps agree with the reference", "[cpu][scan]") {
  compare<float, float, 16>({1, 70}, 11, 5, 20, 100);
  compare<float, float, 16>({1, 70}, 11, 6, -85, -20);
  compare<double, double, 16>({1, 70}, 11, 7, 20, 800);
  compare<double, double, 16>({1, 70}, 11, 8, -700, -20);
  // Below that Δ underflows; the state must pass through unchanged.
  Problem<float, float, 16> still({1, 5}, 9, 9, -300, -200);
  cpu::Device device;
  CHECK(same_bits(still.forward(device).state, still.state));
}

TEST_CASE("the reference's gradients of the selective scan equal finite differences", "[reference][scan]") {
  constexpr int states = 3;
  Problem<double, double, states> problem({2, 4}, 2, 11, -2, 2);
  reference::Device device;
  const auto loss = [&] {  // every y and every element of the final states, with the weights dy and dstate
    const auto out = problem.forward(device);
    double sum = 0;
    for (Index row = 0; row < problem.shape.tokens(); ++row) {
      for (Index e = 0; e < problem.channels; ++e) {
        sum += problem.wide(problem.dy)(row, e) * out.y[static_cast<std::size_t>(row * problem.channels + e)];
      }
    }
    for (Index s = 0; s < problem.shape.batch; ++s) {
      for (Index i = 0; i < states * problem.channels; ++i) {
        const auto at = static_cast<std::size_t>(s * problem.state_stride + i);
        sum += problem.dstate[at] * out.state[at];
      }
    }
    return sum;
  };
  const auto g = problem.backward(device, problem.forward(device).checkpoints);
  const auto check = [&](const char* name, std::vector<double>& x, const std::vector<double>& gradient,
                         const std::vector<double>& start, Index rows, Index columns, Index x_stride, Index g_stride) {
    CAPTURE(name);
    std::vector<double> expected, actual;
    for (Index row = 0; row < rows; ++row) {
      for (Index column = 0; column < columns; ++column) {
        const auto at = static_cast<std::size_t>(row * g_stride + column);
        actual.push_back(gradient[at] - (start.empty() ? 0.0 : start[at]));
        expected.push_back(test::finite_difference(x[static_cast<std::size_t>(row * x_stride + column)], 1e-3, loss));
      }
    }
    CHECK(relative_error(actual, expected) < 1e-8);
  };
  const Index e = problem.channels, t = problem.shape.tokens();
  check("u", problem.u, g.du, {}, t, e, problem.stride, e);
  check("delta", problem.delta, g.ddelta, {}, t, e, problem.stride, e);
  check("z", problem.z, g.dz, {}, t, e, problem.stride, e);
  check("b", problem.b, g.db, {}, t, states, states + 2, states);
  check("c", problem.c, g.dc, {}, t, states, states + 2, states);
  check("state", problem.state, g.dstate, {}, 2, states * e, problem.state_stride, problem.state_stride);
  check("bias", problem.bias, g.dbias, test::uniform<double>(e, 1), 1, e, e, e);
  check("a_log", problem.a_log, g.da_log, test::uniform<double>(e * states, 2), 1, e * states, e, e);
  check("d", problem.d, g.dd, test::uniform<double>(e, 3), 1, e, e, e);
}

TEST_CASE("NaN in any input of the scan reaches what depends on it, and nothing else", "[cpu][scan]") {
  constexpr Index length = 70, channels = 11, at_step = 66, at_channel = 9;
  // Also NaNs with a payload, which bit tricks could turn into numbers.
  for (std::uint32_t bits : {0x7fc00000u, 0x7fc00001u, 0xffc01ff1u, 0x7fffffffu}) {
    const float nan = std::bit_cast<float>(bits);
    cpu::Device device;
    const auto check = [&](const char* name, const auto& poison, Index first, Index last, bool all_channels) {
      CAPTURE(name, bits);
      Problem<float, float, 16> problem({1, length}, channels, 71);
      poison(problem);
      const auto y = problem.forward(device).y;
      Index wrong = 0;
      for (Index t = 0; t < length; ++t) {
        for (Index e = 0; e < channels; ++e) {
          const bool expected = t >= first && t <= last && (all_channels || e == at_channel);
          wrong += std::isnan(y[static_cast<std::size_t>(t * channels + e)]) != expected;
        }
      }
      CHECK(wrong == 0);
    };
    using Case = Problem<float, float, 16>;
    const auto wide = [](Case& p) { return static_cast<std::size_t>(at_step * p.stride + at_channel); };
    const Index end = length - 1;
    check(
        "u", [&](Case& p) { p.u[wide(p)] = nan; }, at_step, end, false);
    check(
        "delta", [&](Case& p) { p.delta[wide(p)] = nan; }, at_step, end, false);
    check(
        "z", [&](Case& p) { p.z[wide(p)] = nan; }, at_step, at_step, false);
    check(
        "b", [&](Case& p) { p.b[at_step * 18 + 3] = nan; }, at_step, end, true);
    check(
        "c", [&](Case& p) { p.c[at_step * 18 + 3] = nan; }, at_step, at_step, true);
    check(
        "bias", [&](Case& p) { p.bias[at_channel] = nan; }, 0, end, false);
    check(
        "a_log", [&](Case& p) { p.a_log[at_channel * 16 + 3] = nan; }, 0, end, false);
    check(
        "d", [&](Case& p) { p.d[at_channel] = nan; }, 0, end, false);
    check(
        "state", [&](Case& p) { p.state[3 * channels + at_channel] = nan; }, 0, end, false);

    Problem<float, float, 16> problem({1, length}, channels, 71);
    const auto checkpoints = problem.forward(device).checkpoints;
    problem.dy[wide(problem)] = nan;
    const auto gradients = problem.backward(device, checkpoints);
    CHECK(std::isnan(gradients.du[at_channel]));
    CHECK(std::isnan(gradients.dd[at_channel]));
    CHECK(std::isnan(gradients.da_log[at_channel * 16]));
    CHECK(std::isnan(gradients.dc[at_step * 16]));
    CHECK_FALSE(std::isnan(gradients.du[at_channel - 1]));
    CHECK_FALSE(std::isnan(gradients.dc[(at_step - 1) * 16]));
  }
}
