#include "moe_mamba/cpu/activation.hpp"

#include <tuple>
#include <vector>

#include "moe_mamba/reference/activation.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

using namespace moe_mamba;

namespace {

/// A user-defined activation.
struct Softsign {
  static constexpr bool gated = false;
  template <class T>
  static T value(T x) {
    return x / (T(1) + (x < T(0) ? -x : x));
  }
  template <class T>
  static T derivative(T x) {
    const T root = T(1) + (x < T(0) ? -x : x);
    return T(1) / (root * root);
  }
};

/// An activation derived from a built-in one: the packet code of its base class must not be used.
struct DoubledSilu : Silu {
  template <class T>
  static T value(T x) {
    return T(2) * Silu::value(x);
  }
  template <class T>
  static T derivative(T x) {
    return T(2) * Silu::derivative(x);
  }
};

template <class Activation, class C>
struct Run {
  Index rows, columns, inputs = Activation::gated ? 2 * columns : columns;
  std::vector<C> h, da, a, dh;

  Run(Index rows_, Index columns_, std::uint64_t seed) : rows(rows_), columns(columns_) {
    h = test::uniform<C>(rows * (inputs + 1), seed, -6, 6);
    da = test::uniform<C>(rows * columns, seed + 1);
    a = test::poison<C>(rows * columns);
    dh = test::poison<C>(rows * inputs);
  }

  Run<Activation, double> in_double() const {
    Run<Activation, double> result(rows, columns, 0);
    result.h = test::converted<double>(h);
    result.da = test::converted<double>(da);
    return result;
  }

  MatrixView<C> input() { return {h.data(), rows, inputs, inputs + 1}; }

  template <class Device>
  void run(Device& device) {
    activate(device, Activation{}, input(), matrix(a.data(), rows, columns));
    activate_backward(device, Activation{}, input(), matrix(da.data(), rows, columns), matrix(dh.data(), rows, inputs));
  }
};

const std::vector<Shape> sizes = {{0, 4}, {1, 0},  {1, 1},  {1, 7},   {2, 8},
                                  {3, 9}, {5, 16}, {7, 17}, {64, 67}, {3, 20000}};

}  // namespace

#define ALL_ACTIVATIONS Relu, SquaredRelu, Gelu, Silu, SwiGlu, GeGlu, Softsign, DoubledSilu

TEMPLATE_TEST_CASE("activations and their gradients agree with the reference", "[cpu][activation]", ALL_ACTIVATIONS) {
  cpu::Device device;
  reference::Device plain;
  const auto check = [&](auto scalar, double tolerance) {
    for (const Shape size : sizes) {
      Run<TestType, decltype(scalar)> actual(size.batch, size.length, 3);
      auto expected = actual.in_double();
      actual.run(device);
      expected.run(plain);
      CAPTURE(size.batch, size.length, tolerance);
      CHECK(test::relative_error(actual.a, expected.a) <= tolerance);
      CHECK(test::relative_error(actual.dh, expected.dh) <= tolerance);
    }
  };
  // The sigmoid's own error, 2.5e-7, and half a dozen roundings of 6e-8 after it.
  check(float{}, 6e-7);
  check(double{}, 1e-15);
}

TEMPLATE_TEST_CASE("an activation's derivative agrees with finite differences", "[reference][activation]",
                   ALL_ACTIVATIONS) {
  reference::Device device;
  Run<TestType, double> run(3, 4, 5);
  for (auto& x : run.h) x = std::abs(x) < 0.1 ? 0.25 : x;  // away from corners
  run.run(device);
  std::vector<double> expected;
  for (Index t = 0; t < run.rows; ++t) {
    for (Index i = 0; i < run.inputs; ++i) {
      expected.push_back(test::finite_difference(run.input()(t, i), 1e-3, [&] {
        std::vector<double> a(run.a.size());
        activate(device, TestType{}, run.input(), matrix(a.data(), run.rows, run.columns));
        double sum = 0;
        for (std::size_t j = 0; j < a.size(); ++j) sum += a[j] * run.da[j];
        return sum;
      }));
    }
  }
  CHECK(test::relative_error(run.dh, expected) < 1e-7);
}

TEST_CASE("gelu in float is accurate element by element, its tails included", "[cpu][activation]") {
  cpu::Device device;
  const Index count = 26001;
  std::vector<float> x(count), y(count), slope(count), ones(count, 1.0f);
  for (Index i = 0; i < count; ++i) x[static_cast<std::size_t>(i)] = -13.0f + 0.001f * static_cast<float>(i);
  activate(device, Gelu{}, matrix(x.data(), 1, count), matrix(y.data(), 1, count));
  activate_backward(device, Gelu{}, matrix(x.data(), 1, count), matrix(ones.data(), 1, count),
                    matrix(slope.data(), 1, count));
  double value = 0, tail = 0, derivative = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double at = x[i], expected = 0.5 * at * std::erfc(-at / std::sqrt(2.0));
    value = std::max(value, std::abs(y[i] - expected) / std::max(1.0, std::abs(at)));
    // The exponent x² / 2 is rounded first, so the relative error grows with it.
    tail = std::max(tail, std::abs(y[i] - expected) / std::abs(expected) / (1 + at * at / 2));
    derivative = std::max(derivative, std::abs(slope[i] - gelu_derivative(at)));
    if (at == 0) tail = std::max(tail, std::abs(double(y[i])));
  }
  CHECK(value < 1.5e-7);
  CHECK(tail < 4e-7);
  CHECK(derivative < 3e-7);
}

TEMPLATE_TEST_CASE("an activation propagates NaN, and infinity gives no NaN", "[cpu][activation]", Relu, SquaredRelu,
                   Gelu, Silu, Softsign) {
  cpu::Device device;
  for (const Index place : {0, 5, 10}) {
    std::vector<float> x(11, 0.5f), y = test::poison<float>(11);
    x[static_cast<std::size_t>(place)] = NAN;
    activate(device, TestType{}, matrix(x.data(), 1, 11), matrix(y.data(), 1, 11));
    for (Index i = 0; i < 11; ++i) CHECK(std::isnan(y[static_cast<std::size_t>(i)]) == (i == place));
  }
  std::vector<float> large(16, 1e30f), y = test::poison<float>(16);
  for (std::size_t i = 0; i < 16; i += 2) large[i] = -1e18f;
  activate(device, TestType{}, matrix(large.data(), 1, 16), matrix(y.data(), 1, 16));
  for (const float value : y) CHECK_FALSE(std::isnan(value));
}

TEST_CASE("activations give the same bits with 1, 2 and 3 threads, and in place", "[cpu][activation]") {
  cpu::Device one;
  Run<Gelu, float> gelu1(301, 333, 7);
  Run<SwiGlu, float> swiglu1(301, 333, 8);
  gelu1.run(one);
  swiglu1.run(one);
  for (const int threads : {2, 3}) {
    cpu::Device many(Threads{threads});
    Run<Gelu, float> gelu(301, 333, 7);
    Run<SwiGlu, float> swiglu(301, 333, 8);
    gelu.run(many);
    swiglu.run(many);
    CHECK(gelu.a == gelu1.a);
    CHECK(gelu.dh == gelu1.dh);
    CHECK(swiglu.a == swiglu1.a);
    CHECK(swiglu.dh == swiglu1.dh);
    activate_backward(many, SwiGlu{}, swiglu.input(), matrix(swiglu.da.data(), 301, 333), swiglu.input());
    for (Index t = 0; t < 301; t += 50) {
      for (Index i = 0; i < 666; ++i) CHECK(swiglu.input()(t, i) == swiglu1.dh[static_cast<std::size_t>(t * 666 + i)]);
    }
  }
}
