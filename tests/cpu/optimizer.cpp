#include "moe_mamba/cpu/optimizer.hpp"

#include <bit>
#include <cfenv>
#include <limits>
#include <memory>
#include <vector>

#include "moe_mamba/reference/optimizer.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

using namespace moe_mamba;

namespace {

using Boundaries = std::vector<Index>;

/// Parameters of `count` elements under AdamW.
template <class S, class C = compute_t<S>>
struct Training {
  static constexpr bool keeps_remainder = AdamWUpdate<C, S>::keeps_remainder;
  std::vector<S> parameters;
  std::vector<std::int16_t> remainder;
  std::vector<C> gradient, given, first_moment, second_moment;  // `given`: a copy of the gradient
  Boundaries boundaries;

  explicit Training(Index count, Boundaries decay_boundaries = {0}) : boundaries(std::move(decay_boundaries)) {
    parameters = test::uniform<S>(count, 1);
    remainder.resize(keeps_remainder ? parameters.size() : 0);
    first_moment.resize(static_cast<std::size_t>(count));
    second_moment.resize(static_cast<std::size_t>(count));
  }

  /// The weights represented by parameters and remainders.
  std::vector<C> weights() const {
    if constexpr (keeps_remainder) {
      std::vector<C> joined(parameters.size());
      for (std::size_t i = 0; i < joined.size(); ++i) joined[i] = join_float({parameters[i], remainder[i]});
      return joined;
    } else {
      return parameters;
    }
  }

  Training<double> in_double() const {
    Training<double> result(0);
    result.parameters = test::converted<double>(parameters);
    result.first_moment.resize(parameters.size());
    result.second_moment.resize(parameters.size());
    return result;
  }

  template <class Device>
  void step(Device& device, int number) {
    gradient = test::uniform<C>(static_cast<Index>(parameters.size()), std::uint64_t(100 + number), -0.3, 0.3);
    given = gradient;
    adamw(device, AdamWUpdate<C, S>{.count = static_cast<Index>(parameters.size()),
                                    .parameters = parameters.data(),
                                    .remainder = keeps_remainder ? remainder.data() : nullptr,
                                    .gradient = gradient.data(),
                                    .first_moment = first_moment.data(),
                                    .second_moment = second_moment.data(),
                                    .scale = 0.5,
                                    .rate = 0.01 / number,
                                    .beta1 = 0.9,
                                    .beta2 = 0.999,
                                    .epsilon = 1e-8,
                                    .decay = 0.1,
                                    .decay_boundaries = boundaries.data(),
                                    .boundary_count = static_cast<Index>(boundaries.size()),
                                    .correction1 = 1 - std::pow(0.9, number),
                                    .correction2 = 1 - std::pow(0.999, number)});
  }
};

const std::vector<Index> counts = {0, 1, 7, 8, 9, 31, 1000, 16383, 16384, 16385, 50001};

template <class Device, class C>
double squares(Device& device, const std::vector<C>& values) {
  double sum = NAN;
  sum_of_squares(device, values.data(), static_cast<Index>(values.size()), &sum);
  return sum;
}

/// Equal up to rounding, by default that of float.
bool close(double actual, double expected, double tolerance = 1e-6) {
  return std::abs(actual - expected) <= tolerance * std::abs(expected);
}

}  // namespace

TEMPLATE_TEST_CASE("AdamW agrees with a loop over its formulas, step after step", "[cpu][optimizer]", float, double,
                   bfloat16) {
  using C = compute_t<TestType>;
  // About ten roundings in the step, which is about a hundredth of a parameter; then one in the parameter for each of
  // five steps.
  const double tolerance = sizeof(C) == 8 ? 1.1e-15 : 6e-7;
  cpu::Device device;
  for (const Index count : counts) {
    Training<TestType> training(count);
    std::vector<double> w = test::converted<double>(training.parameters), m(w.size()), v(w.size());
    for (int number = 1; number <= 5; ++number) {
      training.step(device, number);
      for (std::size_t i = 0; i < w.size(); ++i) {
        const double g = 0.5 * double(training.given[i]);
        m[i] = 0.9 * m[i] + (1 - 0.9) * g;
        v[i] = 0.999 * v[i] + (1 - 0.999) * g * g;
        const double mean = m[i] / (1 - std::pow(0.9, number)), square = v[i] / (1 - std::pow(0.999, number));
        w[i] -= 0.01 / number * (mean / (std::sqrt(square) + 1e-8) + 0.1 * w[i]);
      }
    }
    CAPTURE(count);
    CHECK(training.gradient == training.given);
    CHECK(test::relative_error(training.first_moment, m) <= tolerance);
    CHECK(test::relative_error(training.second_moment, v) <= tolerance);
    CHECK(test::relative_error(training.weights(), w) <= tolerance);
  }
}

TEMPLATE_TEST_CASE("a packet's square roots are rounded correctly and raise no trap", "[cpu][optimizer]", float,
                   double) {
  using C = TestType;
  using P = cpu::Packet<C>;
  constexpr auto width = static_cast<std::size_t>(cpu::lanes<P>);
  using Limits = std::numeric_limits<C>;
  std::vector<C> values = {0, Limits::denorm_min(), Limits::min() / 3, Limits::min(), 1,
                           2, Limits::max(),        Limits::infinity()};
  for (const C x : test::uniform<C>(100000, 3, 0, 4)) values.push_back(std::ldexp(x, int(values.size() % 200) - 100));
  values.resize(values.size() / width * width);
  std::vector<C> roots(values.size());
  std::feclearexcept(FE_ALL_EXCEPT);
  for (std::size_t i = 0; i < values.size(); i += width) {
    cpu::store(roots.data() + i, cpu::sqrt(cpu::load<P>(values.data() + i)));
  }
  CHECK(std::fetestexcept(FE_INVALID | FE_DIVBYZERO | FE_OVERFLOW) == 0);
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < values.size(); ++i) wrong += roots[i] != std::sqrt(values[i]);
  CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("AdamW decays between its boundaries and nowhere else, for any boundaries", "[cpu][optimizer]",
                   float, double, bfloat16) {
  using C = compute_t<TestType>;
  cpu::Device device(Threads{2});
  reference::Device plain;
  const double tolerance = sizeof(C) == 8 ? 1.1e-15 : 6e-7;  // as above
  for (const Index count : {1, 16, 33, 16384, 40000}) {
    const std::vector<Boundaries> cases = {{},
                                           {0},
                                           {0, count},
                                           {count},
                                           {count + 7},
                                           {count - 1},
                                           {0, 0},
                                           {0, 1},
                                           {1, 2, 3},
                                           {3, 4, 4, 11, 13, 29},
                                           {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18},
                                           {5, 16383, 16384, 16385},
                                           {16384},
                                           {100, 32768, 39999, 40000}};
    for (const Boundaries& boundaries : cases) {
      CAPTURE(count, boundaries);
      Training<TestType> actual(count, boundaries);
      Training<double> expected = actual.in_double();
      expected.boundaries = boundaries;
      actual.step(device, 1);
      expected.step(plain, 1);
      CHECK(test::relative_error(actual.weights(), expected.parameters) <= tolerance);
    }
  }
}

TEST_CASE("the reference of AdamW is the same update", "[reference][optimizer]") {
  cpu::Device device;
  reference::Device plain;
  Training<bfloat16> actual(333), expected(333);
  for (int number = 1; number <= 5; ++number) {
    actual.step(device, number);
    expected.step(plain, number);
  }
  CHECK(test::relative_error(actual.weights(), expected.weights()) <= 6e-7);
  CHECK(expected.gradient == actual.gradient);
}

TEST_CASE("AdamW joins and splits weights in packets as it does single ones, for any halves", "[cpu][optimizer]") {
  using P = cpu::Packet<float>;
  constexpr auto width = static_cast<std::size_t>(cpu::lanes<P>);
  const std::vector<std::uint16_t> special = {0,      1,      2,      0x7f,   0x80,   0x3f80, 0x7f7e, 0x7f7f, 0x7f80,
                                              0x7f81, 0x7fbf, 0x7fc0, 0x7ffe, 0x7fff, 0x8000, 0x8001, 0x8002, 0xbf80,
                                              0xff7f, 0xff80, 0xff81, 0xffc0, 0xfffe, 0xffff, 0x1234, 0x4049, 0xc2b5};
  std::size_t wrong = 0;
  const auto check = [&](std::uint32_t first, std::uint32_t second, std::uint32_t step_upper,
                         std::uint32_t step_lower) {
    bfloat16 upper[width], split_upper[width];
    std::int16_t remainder[width], split_remainder[width];
    float value[width], joined[width];
    for (std::size_t i = 0; i < width; ++i) {
      const auto lane = static_cast<std::uint32_t>(i);
      upper[i].bits = static_cast<std::uint16_t>(first + lane * step_upper);
      remainder[i] = static_cast<std::int16_t>(second + lane * step_lower);
      value[i] = std::bit_cast<float>(std::uint32_t(upper[i].bits) << 16 | static_cast<std::uint16_t>(remainder[i]));
    }
    cpu::store(joined, cpu::detail::load_joined<P>(upper, remainder));
    cpu::detail::store_split<P>(split_upper, split_remainder, cpu::load<P>(value));
    for (std::size_t i = 0; i < width; ++i) {
      const SplitFloat halves = split_float(value[i]);
      wrong +=
          std::bit_cast<std::uint32_t>(joined[i]) != std::bit_cast<std::uint32_t>(join_float({upper[i], remainder[i]}));
      wrong += split_upper[i].bits != halves.upper.bits || split_remainder[i] != halves.remainder;
    }
  };
  for (const std::uint32_t some : special) {
    for (std::uint32_t every = 0; every < 0x10000; every += width) {
      check(some, every, 0, 1);
      check(every, some, 1, 0);
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("AdamW adds up steps that are too small for bfloat16, and stores the rounding of the sum",
          "[cpu][optimizer]") {
  const auto check = [](auto device) {
    Training<bfloat16> training(37);
    training.parameters.assign(37, bfloat16(1.0f));
    training.gradient.assign(37, 1.0f);
    // Without momentum every step subtracts the rate, 2^-12; the next bfloat16 below 1 is 1 - 2^-8.
    const auto step = [&] {
      adamw(*device, AdamWUpdate<float, bfloat16>{37, training.parameters.data(), training.remainder.data(),
                                                  training.gradient.data(), training.first_moment.data(),
                                                  training.second_moment.data(), 1.0, 0x1p-12, 0.0, 0.0, 1e-30, 0.0,
                                                  nullptr, 0, 1.0, 1.0});
    };
    for (int number = 1; number <= 40; ++number) {
      step();
      const float weight = 1 - float(number) * 0x1p-12f;
      CAPTURE(number);
      CHECK(training.weights() == std::vector<float>(37, weight));
      CHECK(training.parameters == std::vector<bfloat16>(37, split_float(weight).upper));
    }
    // The last is a tie, two and a half units below 1: rounded away from zero.
    CHECK(float(training.parameters[0]) == 1 - 0x1p-7f);
  };
  check(std::make_unique<cpu::Device>());
  check(std::make_unique<reference::Device>());
}

TEST_CASE("a weight that grows beyond bfloat16 becomes infinite, and NaN remains NaN", "[cpu][optimizer]") {
  const auto check = [](auto device) {
    Training<bfloat16> training(40);
    for (std::size_t i = 0; i < 40; ++i) {
      training.parameters[i].bits = i % 3 == 0 ? 0x7f7f : i % 3 == 1 ? 0xff7f : 0x7fc1;
      training.remainder[i] = static_cast<std::int16_t>(i * 800);
      training.gradient.push_back(i % 3 == 0 ? -1.0f : 1.0f);
    }
    adamw(*device, AdamWUpdate<float, bfloat16>{40, training.parameters.data(), training.remainder.data(),
                                                training.gradient.data(), training.first_moment.data(),
                                                training.second_moment.data(), 1.0, 0x1p119, 0.0, 0.0, 1e-30, 0.0,
                                                nullptr, 0, 1.0, 1.0});
    for (std::size_t i = 0; i < 40; ++i) {
      const auto stored = static_cast<float>(training.parameters[i]);
      CHECK((i % 3 == 2 ? std::isnan(stored) : stored == (i % 3 == 0 ? INFINITY : -INFINITY)));
      CHECK(training.remainder[i] == 0);
    }
  };
  check(std::make_unique<cpu::Device>());
  check(std::make_unique<reference::Device>());
}

TEST_CASE("a NaN in the gradient reaches its parameter", "[cpu][optimizer]") {
  cpu::Device device;
  Training<float> training(20);
  training.step(device, 1);
  training.gradient[11] = NAN;
  adamw(device, AdamWUpdate<float, float>{20, training.parameters.data(), nullptr, training.gradient.data(),
                                          training.first_moment.data(), training.second_moment.data(), 1.0, 0.1, 0.9,
                                          0.99, 1e-8, 0.0, nullptr, 0, 0.1, 0.01});
  for (std::size_t i = 0; i < 20; ++i) CHECK(std::isnan(training.parameters[i]) == (i == 11));
}

TEST_CASE("AdamW clips a gradient by its norm, and changes nothing if that is not finite", "[cpu][optimizer]") {
  const auto updated = [](auto& device, double scale, const double* squares, double clip_norm) {
    Training<float> training(20);
    training.gradient = test::uniform<float>(20, 7);
    adamw(device, AdamWUpdate<float, float>{20, training.parameters.data(), nullptr, training.gradient.data(),
                                            training.first_moment.data(), training.second_moment.data(), scale, 0.1,
                                            0.9, 0.99, 1e-8, 0.1, nullptr, 0, 0.1, 0.01, squares, clip_norm});
    auto all = training.parameters;
    all.insert(all.end(), training.first_moment.begin(), training.first_moment.end());
    return all;
  };
  const auto check = [&](auto device) {
    const double squares = 64, nan = NAN, infinite = INFINITY;  // a norm of 8, of 4 with the scale
    CHECK(updated(*device, 0.5, &squares, 5.0) == updated(*device, 0.5, nullptr, 0.0));
    CHECK(updated(*device, 0.5, &squares, 0.0) == updated(*device, 0.5, nullptr, 0.0));
    CHECK(updated(*device, 0.5, &squares, 2.0) == updated(*device, 0.25, nullptr, 0.0));
    auto before = Training<float>(20).parameters;
    before.resize(40, 0.0f);
    CHECK(updated(*device, 0.5, &nan, 1.0) == before);
    CHECK(updated(*device, 0.5, &infinite, 0.0) == before);
  };
  check(std::make_unique<cpu::Device>());
  check(std::make_unique<reference::Device>());
}

TEMPLATE_TEST_CASE("the sum of squares is exact to double", "[cpu][optimizer]", float, double) {
  cpu::Device one;
  reference::Device plain;
  for (const Index count : {0, 1, 3, 4, 31, 32, 33, 1000, 65535, 65536, 65537, 5000003}) {
    const auto values = test::uniform<TestType>(count, 5);
    const double expected = squares(plain, values), actual = squares(one, values);
    CAPTURE(count);
    // A plain sum loses up to 1.1e-16 per term, and on average the square root of their number.
    CHECK(std::abs(actual - expected) <= 1e-15 * std::sqrt(double(count)) * expected);
    for (const int threads : {2, 3}) {
      cpu::Device many(Threads{threads});
      CHECK(squares(many, values) == actual);
    }
  }
  std::vector<TestType> huge(100, TestType(1e30));  // squares beyond float
  CHECK(close(squares(one, huge), 1e62));
  huge[70] = NAN;
  CHECK(std::isnan(squares(one, huge)));
}

TEMPLATE_TEST_CASE("AdamW gives the same bits with 1, 2 and 3 threads", "[cpu][optimizer]", float, bfloat16) {
  cpu::Device one;
  const Boundaries boundaries = {3, 16390, 50000, 65536};
  Training<TestType> expected(70001, boundaries);
  for (int number = 1; number <= 3; ++number) expected.step(one, number);
  for (const int threads : {2, 3}) {
    cpu::Device many(Threads{threads});
    Training<TestType> actual(70001, boundaries);
    for (int number = 1; number <= 3; ++number) actual.step(many, number);
    CHECK(actual.parameters == expected.parameters);
    CHECK(actual.remainder == expected.remainder);
    CHECK(actual.first_moment == expected.first_moment);
    CHECK(actual.second_moment == expected.second_moment);
  }
}
