// Initialisation of parameters: the documented initialisers, tensor by tensor, determined by the seed alone.
#include "moe_mamba/model/initialise.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moe_mamba/blocks/layer_of.hpp"
#include "moe_mamba/cpu/device.hpp"
#include "moe_mamba/language/attention.hpp"
#include "moe_mamba/language/language_model.hpp"
#include "moe_mamba/language/mamba.hpp"
#include "moe_mamba/language/mlp.hpp"
#include "moe_mamba/language/moe.hpp"
#include "moe_mamba/language/parallel.hpp"
#include "moe_mamba/language/sequence_model.hpp"
#include "moe_mamba/model/cost.hpp"
#include "moe_mamba/model/model.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;

namespace {

constexpr int D = 48, E = 144, N = 16, R = 7, K = 4, F = 40, H = 60;
using Net = LanguageModel<
    Vocabulary<300>, Width<D>, Head,
    Repeat<2, Mamba<State<N>, Expand<3>, StepRank<R>>, Moe<Experts<6>, Hidden<F>, SwiGlu, SharedExperts<2>>>,
    Parallel<Mlp<Hidden<F>>, Mamba<State<N>, Expand<3>, StepRank<R>>>, LayerNorm<>,
    Attention<Heads<6>, KeyValueHeads<2>, HeadWidth<H / 6>, Context<8>, Biases>>;
constexpr double branches = 6;
using Series = SequenceModel<Inputs<20>, Outputs<30>, Width<D>, Mlp<Hidden<F>>>;

template <class Definition, class S = double>
std::vector<S> values(Seed seed) {
  std::vector<S> result(static_cast<std::size_t>(Definition::parameters));
  initialise<Definition>(seed, result.data());
  return result;
}

struct Moments {
  double mean = 0, deviation = 0, smallest = 0, largest = 0, count = 0;
};

template <class Range>
Moments moments(const Range& range) {
  Moments m{0, 0, *std::min_element(range.begin(), range.end()), *std::max_element(range.begin(), range.end()),
            static_cast<double>(range.size())};
  for (const double x : range) m.mean += x / m.count;
  for (const double x : range) m.deviation += (x - m.mean) * (x - m.mean) / m.count;
  m.deviation = std::sqrt(m.deviation);
  return m;
}

/// Five standard errors: one test in a million fails by chance, and the seed is fixed. `kurtosis`: of the distribution.
void check_moments(const Moments& m, double mean, double deviation, double kurtosis) {
  CHECK(std::abs(m.mean - mean) <= 5 * deviation / std::sqrt(m.count));
  CHECK(std::abs(m.deviation / deviation - 1) <= 5 * std::sqrt((kurtosis - 1) / (4 * m.count)));
}

void check_uniform(const std::vector<double>& x, double bound) {
  const Moments m = moments(x);
  check_moments(m, 0, bound / std::sqrt(3.0), 1.8);
  CHECK(m.smallest >= -bound);
  CHECK(m.largest <= bound);
  CHECK(m.largest - m.smallest >= 2 * bound * (1 - 20 / m.count));
}

/// Truncated at two standard deviations, which leaves 0.8796 of the deviation.
void check_truncated(const std::vector<double>& x, double fan_in) {
  const double s = std::sqrt(0.1 / fan_in);
  const Moments m = moments(x);
  check_moments(m, 0, 0.87962566 * s, 2.4);
  CHECK(m.smallest >= -2 * s);
  CHECK(m.largest <= 2 * s);
  CHECK(m.largest >= 1.9 * s);
  CHECK(m.smallest <= -1.9 * s);
}

void check_parameter(std::string_view name, const std::vector<double>& x) {
  INFO(name);
  const auto is = [&](std::string_view end) { return name.ends_with(end); };
  if (is("norm.weight") || is("norm_f.weight") || is(".D")) {
    CHECK(x == std::vector<double>(x.size(), 1));
  } else if (is("norm.bias")) {
    CHECK(x == std::vector<double>(x.size(), 0));
  } else if (is("embedding.weight") || is("lm_head.weight")) {
    check_moments(moments(x), 0, 0.02, 3);
    CHECK(moments(x).largest >= 0.06);  // not cut off
  } else if (is("q_proj.weight") || is("k_proj.weight") || is("v_proj.weight")) {
    check_uniform(x, 1 / std::sqrt(double(D)));
  } else if (is(".o_proj.weight")) {
    check_uniform(x, 1 / std::sqrt(double(H)) / std::sqrt(branches));
  } else if (is("q_proj.bias") || is("k_proj.bias") || is("v_proj.bias") || is(".o_proj.bias")) {
    CHECK(x == std::vector<double>(x.size(), 0));
  } else if (is("in_proj.weight")) {
    check_uniform(x, 1 / std::sqrt(double(D)));
  } else if (is("conv1d.weight") || is("conv1d.bias")) {
    check_uniform(x, 1 / std::sqrt(double(K)));
  } else if (is("x_proj.weight")) {
    check_uniform(x, 1 / std::sqrt(double(E)));
  } else if (is("dt_proj.weight")) {
    check_uniform(x, 1 / std::sqrt(double(R)));
  } else if (is("out_proj.weight")) {
    check_uniform(x, 1 / std::sqrt(double(E)) / std::sqrt(branches));
  } else if (is("dt_proj.bias")) {
    // Steps are log-uniform in [0.001, 0.1].
    std::vector<double> logarithms;
    for (const double bias : x) logarithms.push_back(std::log(std::log1p(std::exp(bias))));
    const double low = std::log(0.001), high = std::log(0.1);
    const Moments m = moments(logarithms);
    CHECK(m.smallest >= low - 1e-9);
    CHECK(m.largest <= high + 1e-9);
    CHECK(m.largest - m.smallest >= 0.8 * (high - low));
    check_moments(m, (low + high) / 2, (high - low) / std::sqrt(12.0), 1.8);
  } else if (is("A_log")) {
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < x.size(); ++i) wrong += x[i] != std::log(static_cast<double>(i % N + 1)) ? 1u : 0u;
    CHECK(wrong == 0);
  } else if (is("router.weight") || is("up.weight")) {
    check_truncated(x, D);
  } else if (is("down.weight")) {
    check_truncated(x, F);
  } else if (is("input.weight") || is("input.bias")) {
    check_uniform(x, 1 / std::sqrt(20.0));
  } else if (is("output.weight") || is("output.bias")) {
    check_uniform(x, 1 / std::sqrt(double(D)));
  } else {
    FAIL("a parameter that this test does not know");
  }
}

template <class Definition>
void check_all() {
  const auto all = values<Definition>(Seed{1});
  for (const Parameter& parameter : parameter_list<Definition>()) {
    const auto begin = all.begin() + parameter.offset;
    check_parameter(parameter.name.view(), {begin, begin + parameter.size()});
  }
}

/// The mean square and the mean fourth power of a standard normal truncated at ± bound.
std::pair<double, double> cut_moments(double bound) {
  double weight = 0, square = 0, fourth = 0;
  constexpr int steps = 100000;
  for (int i = 0; i < steps; ++i) {
    const double x = std::min(bound, 12.0) * (i + 0.5) / steps, density = std::exp(-x * x / 2);
    weight += density;
    square += density * x * x;
    fourth += density * x * x * x * x;
  }
  return {square / weight, fourth / weight};
}

/// Normal with variance 0.1 / fan_in, truncated at ± 0.2.
void check_bounded(const std::vector<double>& x, double fan_in) {
  const double s = std::sqrt(0.1 / fan_in);
  const auto [square, fourth] = cut_moments(0.2 / s);
  const Moments m = moments(x);
  check_moments(m, 0, std::sqrt(square) * s, fourth / (square * square));
  CHECK(m.smallest >= -0.2);
  CHECK(m.largest <= 0.2);
  // And not earlier: a thousand values or more come close to the bound, or to three standard deviations.
  if (x.size() >= 1000) {
    CHECK(m.largest >= std::min(0.19, 2.8 * s));
    CHECK(m.smallest <= -std::min(0.19, 2.8 * s));
  }
}

}  // namespace

TEST_CASE("Every parameter is initialised from its distribution", "[model][initialise]") {
  static_assert(Net::Body::branches == 6);
  check_all<Net>();
  check_all<Series>();
}

TEMPLATE_TEST_CASE_SIG("Router, experts, embedding and head may start as in the code of MoE-Mamba",
                       "[model][initialise]", ((int W), W), 3, 64) {
  using Plain = LanguageModel<Vocabulary<500>, Width<W>, Head,
                              Repeat<2, Mamba<>, Moe<Experts<5>, Hidden<120>, SharedExperts<1>>>>;
  using Other = LanguageModel<Vocabulary<500>, Width<W>, Head, UnitFanIn,
                              Repeat<2, Mamba<>, Moe<Experts<5>, Hidden<120>, SharedExperts<1>, JointFanIn>>>;
  const auto plain = values<Plain>(Seed{1}), other = values<Other>(Seed{1});
  int bounded = 0;
  for (const Parameter& parameter : parameter_list<Other>()) {
    const std::string_view name = parameter.name.view();
    INFO(name);
    const auto tensor = [&](const std::vector<double>& all) {
      const auto begin = all.begin() + parameter.offset;
      return std::vector<double>(begin, begin + parameter.size());
    };
    const double fan_in =
        name == "embedding.weight"                                                                           ? 1
        : name.ends_with("experts.down.weight")                                                              ? 5 * 120
        : name == "lm_head.weight" || name.ends_with("router.weight") || name.ends_with("experts.up.weight") ? W
                                                                                                             : 0;
    if (fan_in == 0) {
      CHECK(tensor(other) == tensor(plain));
    } else {
      ++bounded;
      check_bounded(tensor(other), fan_in);
    }
  }
  CHECK(bounded == 2 + 2 * 3);
}

TEST_CASE("The same seed gives the same bits, another one other values", "[model][initialise]") {
  const auto a = values<Net>(Seed{1}), b = values<Net>(Seed{1}), c = values<Net>(Seed{2}),
             d = values<Net>(Seed{std::uint64_t{1} << 63});
  CHECK(std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0);
  for (const Parameter& parameter : parameter_list<Net>()) {
    const auto draw = parameter.initializer.draw;
    const bool is_random =
        draw != Initializer::zeros().draw && draw != Initializer::ones().draw && draw != Initializer::s4d_real().draw;
    INFO(parameter.name.view());
    std::size_t equal = 0, size = static_cast<std::size_t>(parameter.size());
    for (std::size_t i = 0; i < size; ++i) {
      const std::size_t at = static_cast<std::size_t>(parameter.offset) + i;
      equal += a[at] == c[at] || a[at] == d[at] || c[at] == d[at] ? 1u : 0u;
    }
    CHECK(equal == (is_random ? 0 : size));
  }
}

/// A user-defined layer whose parameter is drawn by its own function: column + U(1, 16).
struct Drawn {
  template <int D>
  struct Layer : LayerOf<> {
    template <class Bind>
    struct Weights {
      static double draw(const Initializer& self, Random& random, Index column) {
        return self.scale * static_cast<double>(column) + random.uniform(1, 16);
      }
      constexpr explicit Weights(Bind& bind) : w(bind.matrix("w", D, D, {.draw = draw, .scale = 100})) {}
      typename Bind::Matrix w;
    };
  };
};

TEST_CASE("A user-defined layer may have its own initialiser", "[model][initialise]") {
  using Layer = Drawn::Layer<20>;
  std::vector<double> w(static_cast<std::size_t>(parameters_of<Layer>));
  initialise(
      layer_parameters<Layer>[0], Seed { 1 }, 0, 1, w.data());
  for (std::size_t i = 0; i < w.size(); ++i) w[i] -= 100 * static_cast<double>(i % 20);
  const Moments m = moments(w);
  CHECK(m.smallest >= 1);
  CHECK(m.largest < 16);
  check_moments(m, 8.5, 15 / std::sqrt(12.0), 1.8);
}

TEST_CASE("No two tensors begin alike", "[model][initialise]") {
  const auto all = values<Net>(Seed{1});
  // Two parameters drawn from the same stream would have values equal up to a factor: ratios of the first two values.
  std::set<double> ratios;
  std::size_t tensors = 0;
  for (const Parameter& parameter : parameter_list<Net>()) {
    const auto first = static_cast<std::size_t>(parameter.offset);
    const auto draw = parameter.initializer.draw;
    if (draw != Initializer::uniform(1).draw && draw != Initializer::truncated_normal(1, 1).draw &&
        draw != Initializer::normal(1).draw) {
      continue;
    }
    ++tensors;
    ratios.insert(std::round(1e9 * all[first] / all[first + 1]));
  }
  CHECK(ratios.size() == tensors);
}

TEST_CASE("Initial values do not depend on the scalar type, except for rounding", "[model][initialise]") {
  const auto exact = values<Net>(Seed{5});
  const auto single = values<Net, float>(Seed{5});
  const auto brain = values<Net, bfloat16>(Seed{5});
  std::size_t differ = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    differ += single[i] != static_cast<float>(exact[i]) || brain[i] != bfloat16(static_cast<float>(exact[i])) ? 1u : 0u;
  }
  CHECK(differ == 0);
}

TEST_CASE("A model starts from its seed", "[model][initialise]") {
  using Small = LanguageModel<Vocabulary<9>, Width<8>, Mamba<>>;
  const auto expected = values<Small, float>(Seed{3});
  const Model<Small> model(Seed{3});
  CHECK(std::equal(expected.begin(), expected.end(), model.parameters().begin(), model.parameters().end()));
}
