// NaN propagates: nothing replaces or hides it.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "model/definitions.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;
using test::Bench;

namespace {

template <class C>
bool all_nan(const std::vector<C>& values) {
  return std::all_of(values.begin(), values.end(), [](C value) { return std::isnan(value); });
}

template <class C>
bool none_nan(const std::vector<C>& values) {
  return std::none_of(values.begin(), values.end(), [](C value) { return std::isnan(value); });
}

/// A NaN in one element of each row of a tensor of parameters, for each tensor in turn.
template <class Definition, class S>
void check_parameters() {
  using C = compute_t<S>;
  const S nan = S(std::numeric_limits<float>::quiet_NaN());
  auto device = test::open(2);
  Bench<Definition, S> bench(device, {2, 5}, test::parameters<Definition>());
  const auto data = test::data<Definition, C>({2, 5});
  CHECK(none_nan(bench.forward(data.inputs, data.shape)));
  CHECK(std::isfinite(bench.loss(data).total()));
  for (const Parameter& parameter : parameter_list<Definition>()) {
    const std::string name(parameter.name.view());
    INFO("NaN in " << name);
    const std::vector<S> before = test::numbers(bench.model);
    std::vector<S> values = before;
    const Index last = parameter.shape[static_cast<std::size_t>(parameter.rank - 1)];
    for (Index i = 0; i < parameter.size(); i += parameter.rank == 1 ? 1 : last) {
      values[static_cast<std::size_t>(parameter.offset + i)] = nan;
    }
    bench.model.write(values);
    CHECK(all_nan(bench.forward(data.inputs, data.shape)));
    CHECK(std::isnan(bench.loss(data).prediction));
    std::vector<C> gradients(static_cast<std::size_t>(Definition::parameters));
    CHECK(std::isnan(bench.gradient(data, gradients).total()));
    CHECK_FALSE(none_nan(gradients));
    bench.model.write(before);
  }
  CHECK(none_nan(bench.forward(data.inputs, data.shape)));
}

}  // namespace

TEST_CASE("A NaN in any parameter shows in outputs, loss and gradient", "[model][nan]") {
  check_parameters<test::MixtureNet, float>();
  check_parameters<test::MixtureNet, bfloat16>();
  check_parameters<test::ManyWaysNet, float>();
  check_parameters<test::SeriesNet, float>();
  check_parameters<test::AttentionNet, float>();
}

TEST_CASE("A NaN in one input shows from its step on, and in its sequence only", "[model][nan]") {
  using Net = test::SeriesNet;
  const Shape shape{3, 6};
  auto device = test::open(2);
  Bench<Net, float> bench(device, shape, test::parameters<Net>());
  auto data = test::data<Net, float>(shape);
  const auto clean = bench.forward(data.inputs, shape);
  const Index row = 1 * shape.length + 2;  // sequence 1, step 2
  data.inputs[static_cast<std::size_t>(row * Net::input_width + 1)] = std::numeric_limits<float>::quiet_NaN();
  States<Net, float> states(3);
  const auto outputs = bench.forward(data.inputs, shape, &states);
  for (Index t = 0; t < shape.tokens(); ++t) {
    for (Index i = 0; i < Net::output_width; ++i) {
      const auto element = static_cast<std::size_t>(t * Net::output_width + i);
      INFO("row " << t << ", output " << i);
      if (t >= row && t < 2 * shape.length) {
        CHECK(std::isnan(outputs[element]));
      } else {
        CHECK(outputs[element] == clean[element]);
      }
    }
  }
  const auto in_state = [&](Index b) {
    const auto state = states.sequence(b);
    return std::any_of(state.begin(), state.end(), [](float value) { return std::isnan(value); });
  };
  CHECK_FALSE(in_state(0));
  CHECK(in_state(1));
  CHECK_FALSE(in_state(2));
  CHECK(std::isnan(bench.loss(data).total()));
}

TEST_CASE("A NaN in a running state shows in the outputs", "[model][nan]") {
  using Net = test::MixtureNet;
  auto device = test::open();
  Bench<Net, float> bench(device, {2, 3}, test::parameters<Net>());
  for (std::size_t element = 0; element < static_cast<std::size_t>(Net::Body::state_size); element += 3) {
    INFO("state " << element);
    States<Net, float> states(2);
    states.sequence(1)[element] = std::numeric_limits<float>::quiet_NaN();
    const auto outputs = bench.forward({1, 2, 3, 1, 2, 3}, {2, 3}, &states);
    const auto half = outputs.begin() + 3 * Net::output_width;
    CHECK(none_nan(std::vector<float>(outputs.begin(), half)));
    CHECK_FALSE(none_nan(std::vector<float>(half, outputs.end())));
  }
}
