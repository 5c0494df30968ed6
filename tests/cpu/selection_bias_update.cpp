// Updates of selection biases by their experts' loads.
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "moe_mamba/cpu/router.hpp"
#include "moe_mamba/reference/router.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

using namespace moe_mamba;

namespace {

/// Three routers of 1, 5 and 8 experts among parameters, some of which are others.
template <class S>
struct Biases {
  static constexpr bool keeps_remainder = SelectionBiasUpdate<S>::keeps_remainder;
  std::vector<SelectionBiasPlace> places{{2, 4, 1}, {3, 7, 5}, {11, 12, 8}};
  std::vector<S> parameters = test::uniform<S>(20, 1);
  std::vector<std::int16_t> remainder;
  std::vector<double> report;
  double rate = 0x1p-9;  // exact in any type
  const double* squares = nullptr;
  double scale = 1;
  Index begin = 0, end = 20;

  explicit Biases(std::uint64_t seed) : remainder(keeps_remainder ? 20 : 0) {
    Random random(Seed{seed});
    for (int i = 0; i < 20; ++i) report.push_back(static_cast<double>(random.below(3)));
    for (auto& rest : remainder) rest = static_cast<std::int16_t>(static_cast<int>(random.below(1 << 16)) - (1 << 15));
  }

  template <class Device>
  Biases& update(Device& device) {
    update_selection_biases(device, SelectionBiasUpdate<S>{.places = places.data(),
                                                           .count = static_cast<Index>(places.size()),
                                                           .parameters = parameters.data(),
                                                           .remainder = keeps_remainder ? remainder.data() : nullptr,
                                                           .report = report.data(),
                                                           .rate = rate,
                                                           .squares = squares,
                                                           .scale = scale,
                                                           .begin = begin,
                                                           .end = end});
    return *this;
  }

  double value(std::size_t i) const {
    if constexpr (keeps_remainder) {
      return double(join_float({parameters[i], remainder[i]}));
    } else {
      return double(parameters[i]);
    }
  }
  bool same(const Biases& other) const {
    bool equal = remainder == other.remainder;
    for (std::size_t i = 0; i < 20; ++i) equal = equal && value(i) == other.value(i);
    return equal;
  }
};

}  // namespace

TEMPLATE_TEST_CASE("an update of selection biases agrees with the reference, and changes nothing else",
                   "[cpu][reference][router]", float, double, bfloat16) {
  cpu::Device device(Threads{3});
  reference::Device plain;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const Biases<TestType> before(seed);
    auto actual = before, expected = before;
    actual.update(device);
    expected.update(plain);
    CHECK(actual.same(expected));
    for (std::size_t i = 0; i < 20; ++i) {
      const bool is_bias = (i >= 2 && i < 8) || (i >= 11 && i < 19);
      const double moved = actual.value(i) - before.value(i);
      CHECK((moved == 0 || (is_bias && std::abs(std::abs(moved) - before.rate) < 1e-7)));
    }
    // The same in parts, as on ranks that each hold some of the parameters.
    auto pieces = before;
    for (const auto& [begin, end] : {std::pair<Index, Index>{0, 5}, {5, 5}, {5, 12}, {12, 20}}) {
      pieces.begin = begin;
      pieces.end = end;
      pieces.update(device);
    }
    CHECK(pieces.same(actual));
    // Not for a gradient whose norm is not finite.
    for (const double squares : {double(NAN), double(INFINITY), 1e300}) {
      auto skipped = before;
      skipped.squares = &squares;
      skipped.scale = squares > 1e300 ? 1 : 1e200;
      CHECK(skipped.update(device).same(before));
      skipped.scale = 0.5;
      CHECK(skipped.update(device).same(actual) == (squares == 1e300));
    }
  }
}

TEST_CASE("a bias follows its expert's load by hand", "[cpu][reference][router]") {
  cpu::Device device;
  reference::Device plain;
  const auto moved = [&](const std::vector<double>& loads) {
    const auto count = static_cast<int>(loads.size());
    const SelectionBiasPlace place{0, 0, count};
    std::vector<float> bias(loads.size()), expected(loads.size());
    SelectionBiasUpdate<float> update{.places = &place,
                                      .count = 1,
                                      .parameters = bias.data(),
                                      .remainder = nullptr,
                                      .report = loads.data(),
                                      .rate = 0.5};
    update_selection_biases(device, update);
    update.parameters = expected.data();
    update_selection_biases(plain, update);
    CHECK(bias == expected);
    return bias;
  };
  using List = std::vector<float>;
  CHECK(moved({3, 1, 2}) == List{-0.5, 0.5, 0});
  CHECK(moved({0, 0, 7}) == List{0.5, 0.5, -0.5});
  CHECK(moved({0, 0, 0}) == List{0, 0, 0});
  CHECK(moved({5}) == List{0});
  // Means that are not representable.
  CHECK(moved({1, 1, 1}) == List{0, 0, 0});
  CHECK(moved({1, 1, 2}) == List{0.5, 0.5, -0.5});
}
