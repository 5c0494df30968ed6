#include "moe_mamba/cpu/exponential.hpp"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "moe_mamba/core/random.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;
using cpu::lanes;
using cpu::Packet;
using cpu::scalar_of;

namespace {

/// Largest relative error of f over many arguments between low and high, where `exact` is a normal number.
template <class P, class F, class Exact>
double worst_error(const F& f, const Exact& exact, double low, double high) {
  using C = scalar_of<P>;
  using Wide = std::conditional_t<std::is_same_v<C, float>, double, long double>;
  constexpr Index width = lanes<P>;
  Random random(Seed{17});
  double worst = 0;
  for (int i = 0; i < 200'000 / static_cast<int>(width); ++i) {
    C x[width], y[width];
    for (C& value : x) {  // even ones uniform, odd ones of every magnitude
      const double draw = random.uniform(low, high);
      value = static_cast<C>(i % 2 == 0 ? draw : draw * std::exp2(-30 * random.uniform()));
    }
    cpu::store(y, f(cpu::load<P>(x)));
    for (Index lane = 0; lane < width; ++lane) {
      const Wide e = exact(static_cast<Wide>(x[lane]));
      if (std::abs(e) < static_cast<Wide>(std::numeric_limits<C>::min())) continue;
      worst = std::max(worst, static_cast<double>(std::abs((static_cast<Wide>(y[lane]) - e) / e)));
    }
  }
  return worst;
}

/// The bounds are those documented in the header.
template <class P>
void check_errors() {
  constexpr bool single = std::is_same_v<scalar_of<P>, float>;
  const double low = single ? -87.2 : -708, high = single ? 88.36 : 709.7;
  using std::exp, std::exp2, std::log1p;
  CHECK(worst_error<P>([](P x) { return cpu::exponential(x); }, [](auto x) { return exp(x); }, low, high) <=
        (single ? 1.0e-7 : 2e-16));
  CHECK(worst_error<P>([](P x) { return cpu::decay_power(x); }, [](auto x) { return exp2(x); }, single ? -126 : -1022,
                       0) <= (single ? 1.8e-7 : 2e-16));
  for (double top : {40.0, single ? 1e30 : 1e200}) {
    CHECK(worst_error<P>([](P x) { return cpu::sigmoid(x); }, [](auto x) { return 1 / (1 + exp(-x)); }, low, top) <=
          (single ? 1.8e-7 : 4e-16));
    CHECK(worst_error<P>([](P x) { return cpu::silu(x); }, [](auto x) { return x / (1 + exp(-x)); }, low, top) <=
          (single ? 1.8e-7 : 4e-16));
    const auto exact = [](auto x) { return (x > 0 ? x : 0) + log1p(exp(x > 0 ? -x : x)); };
    CHECK(worst_error<P>([](P x) { return cpu::softplus(x); }, exact, low, top) <= (single ? 2.7e-7 : 5e-16));
    CHECK(worst_error<P>([](P x) { return cpu::softplus_with_derivative(x).value; }, exact, low, top) <=
          (single ? 2.7e-7 : 5e-16));
    CHECK(worst_error<P>([](P x) { return cpu::softplus_with_derivative(x).derivative; },
                         [](auto x) { return 1 / (1 + exp(-x)); }, low, top) <= (single ? 1.8e-7 : 4e-16));
  }
}

/// f of one value, evaluated in every lane of a packet.
template <class P, class F>
scalar_of<P> at(const F& f, scalar_of<P> x) {
  scalar_of<P> y[lanes<P>];
  cpu::store(y, f(P(x)));
  return y[lanes<P> - 1];
}

template <class P>
void check_edges() {
  using C = scalar_of<P>;
  constexpr C infinity = std::numeric_limits<C>::infinity();
  const auto exponential = [](P x) { return cpu::exponential(x); };
  const auto power = [](P x) { return cpu::decay_power(x); };
  const auto sigmoid = [](P x) { return cpu::sigmoid(x); };
  const auto silu = [](P x) { return cpu::silu(x); };
  const auto softplus = [](P x) { return cpu::softplus(x); };
  CHECK(at<P>(exponential, C(0)) == C(1));
  CHECK(at<P>(exponential, -infinity) == C(0));
  CHECK(at<P>(exponential, C(-800)) == C(0));
  CHECK(at<P>(exponential, C(800)) == infinity);
  CHECK(at<P>(exponential, infinity) == infinity);
  CHECK(at<P>(power, C(0)) == C(1));
  CHECK(at<P>(power, C(-1)) == C(0.5));
  CHECK(at<P>(power, -infinity) == at<P>(power, C(-5000)));
  CHECK(at<P>(power, -infinity) <= 2 * std::numeric_limits<C>::min());
  CHECK(at<P>(power, -infinity) >= 0);
  CHECK(at<P>(sigmoid, C(0)) == C(0.5));
  CHECK(at<P>(sigmoid, C(-1e30)) == C(0));
  CHECK(at<P>(sigmoid, C(1e30)) == C(1));
  CHECK(at<P>(silu, C(-1e30)) == C(0));
  CHECK(at<P>(silu, C(1e30)) == C(1e30));
  CHECK(at<P>(silu, C(0)) == C(0));
  CHECK(at<P>(softplus, C(-1e30)) == C(0));
  CHECK(at<P>(softplus, C(1e30)) == C(1e30));
  CHECK(at<P>(softplus, infinity) == infinity);
  CHECK(at<P>(softplus, -infinity) == C(0));
  std::vector<C> nans{std::numeric_limits<C>::quiet_NaN(), -std::numeric_limits<C>::quiet_NaN()};
  if constexpr (std::is_same_v<C, float>) {
    for (std::uint32_t bits : {0x7fc00001u, 0x7fc001ffu, 0xffffffffu}) nans.push_back(std::bit_cast<float>(bits));
  } else {
    nans.push_back(std::bit_cast<double>(std::uint64_t{0x7ff8000000000001u}));
  }
  for (C nan : nans) {
    CHECK(std::isnan(at<P>(exponential, nan)));
    CHECK(std::isnan(at<P>(sigmoid, nan)));
    CHECK(std::isnan(at<P>(silu, nan)));
    CHECK(std::isnan(at<P>(softplus, nan)));
    CHECK(std::isnan(at<P>([](P x) { return cpu::silu_with_derivative(x).value; }, nan)));
    CHECK(std::isnan(at<P>([](P x) { return cpu::silu_with_derivative(x).derivative; }, nan)));
    CHECK(std::isnan(at<P>([](P x) { return cpu::softplus_with_derivative(x).value; }, nan)));
    CHECK(std::isnan(at<P>([](P x) { return cpu::softplus_with_derivative(x).derivative; }, nan)));
    CHECK(std::isnan(at<P>([](P x) { return cpu::decay_power(cpu::detail::plain_nan(x)); }, nan)));
  }
}

}  // namespace

TEST_CASE("exponential functions have the documented errors", "[cpu][exponential]") {
  SECTION("packets of float") { check_errors<Packet<float>>(); }
  SECTION("float") { check_errors<Packet<float, 1>>(); }
  SECTION("packets of double") { check_errors<Packet<double>>(); }
  SECTION("double") { check_errors<Packet<double, 1>>(); }
}

TEST_CASE("exponential functions saturate and propagate NaN", "[cpu][exponential]") {
  SECTION("packets of float") { check_edges<Packet<float>>(); }
  SECTION("float") { check_edges<Packet<float, 1>>(); }
  SECTION("packets of double") { check_edges<Packet<double>>(); }
  SECTION("double") { check_edges<Packet<double, 1>>(); }
}

TEST_CASE("the derivative of silu equals finite differences", "[cpu][exponential]") {
  using P = Packet<double>;
  for (double x = -30; x <= 30; x += 0.37) {
    const double h = 1e-3;
    const auto value = [](double v) { return at<P>([](P p) { return cpu::silu(p); }, v); };
    const double expected = (8 * (value(x + h) - value(x - h)) - (value(x + 2 * h) - value(x - 2 * h))) / (12 * h);
    CHECK(std::abs(at<P>([](P p) { return cpu::silu_with_derivative(p).derivative; }, x) - expected) < 1e-10);
  }
}
