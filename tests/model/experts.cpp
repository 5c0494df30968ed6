// Routing at its extremes.
#include "model/gradient_check.hpp"

using namespace moe_mamba;

namespace {

template <class... Options>
using NetOf = LanguageModel<Vocabulary<9>, Width<5>, PreNorm<LayerNorm<>>, Mamba<State<2>>,
                            Moe<Experts<5>, Hidden<3>, Silu, ZLoss<1, 10>, Options...>>;

template <class Definition>
std::span<double> tensor(test::NaiveLoss<Definition>& naive, const std::string& name) {
  Model<Definition, double> model{std::span<double>(naive.values)};
  return model.parameter(name);
}

/// Makes all normalised rows close to (1, …, 1), so that an expert's logit is near the sum of its row of the router.
template <class Definition>
void make_rows_alike(test::NaiveLoss<Definition>& naive) {
  for (double& gain : tensor(naive, "layers.1.norm.weight")) gain *= 0.1;
  for (double& bias : tensor(naive, "layers.1.norm.bias")) bias = 1;
}

template <class Definition>
std::vector<double> load(const test::NaiveLoss<Definition>& naive) {
  Cpu device;
  test::Bench<Definition> bench(device, naive.batch.shape, naive.values);
  (void)bench.loss(naive.batch);
  std::vector<double> tokens;
  bench.workspace.visit_routers(
      [&](const RouterReport& report) { tokens.assign(report.load.begin(), report.load.end()); });
  return tokens;
}

template <class Definition>
test::Gradients<Definition, Cpu> check_gradients(test::NaiveLoss<Definition>& naive) {
  const auto gradients = test::check_same_gradients(naive);
  test::check_all_gradients(naive, gradients.parameters, 0, gradients.dstates,
                            [&](std::uint64_t& decisions) { return naive.loss(decisions); });
  return gradients;
}

/// Expert `expert`'s part of a gradient.
template <class Definition>
std::vector<double> of_expert(const std::vector<double>& gradients, const std::string& name, Index expert) {
  for (const Parameter& parameter : parameter_list<Definition>()) {
    if (parameter.name.view() != name) continue;
    const Index size = parameter.size() / parameter.shape[0];
    const auto begin = gradients.begin() + parameter.offset + expert * size;
    return {begin, begin + size};
  }
  return {};
}

}  // namespace

TEST_CASE("All tokens may go to one expert, and the others then get no gradient", "[model][experts]") {
  using Net = NetOf<TopK<1>>;
  test::NaiveLoss<Net> naive({2, 6});
  make_rows_alike(naive);
  const auto router = tensor(naive, "layers.1.mixer.router.weight");
  for (std::size_t i = 0; i < router.size(); ++i) router[i] = i / 5 == 3 ? 0.5 : -0.1 * static_cast<double>(i / 5);
  CHECK(load(naive) == std::vector<double>{0, 0, 0, 12, 0});
  const auto gradients = check_gradients(naive);
  for (const Index expert : {0, 1, 2, 4}) {
    for (const char* name : {"layers.1.mixer.experts.up.weight", "layers.1.mixer.experts.down.weight"}) {
      const auto part = of_expert<Net>(gradients.parameters, name, expert);
      CHECK(part.size() == 15);
      CHECK(part == std::vector<double>(15));
    }
  }
}

TEST_CASE("Two experts may share all tokens in the other gate order", "[model][experts]") {
  using Net = NetOf<TopK<2>, TopKThenSoftmax>;
  test::NaiveLoss<Net> naive({1, 7});
  make_rows_alike(naive);
  const auto router = tensor(naive, "layers.1.mixer.router.weight");
  for (std::size_t i = 0; i < router.size(); ++i) router[i] = i / 5 == 1 || i / 5 == 4 ? 0.4 : -0.1;
  for (std::size_t i = 5; i < 10; ++i) router[i] += 0.1;
  CHECK(load(naive) == std::vector<double>{0, 7, 0, 0, 7});
  (void)check_gradients(naive);
}

TEST_CASE("A single token goes to its experts alone", "[model][experts]") {
  using Net = NetOf<TopK<2>, SharedExperts<2>>;
  test::NaiveLoss<Net> naive({1, 1});
  const auto tokens = load(naive);
  CHECK(std::count(tokens.begin(), tokens.end(), 1.0) == 2);
  CHECK(std::count(tokens.begin(), tokens.end(), 0.0) == 3);
  (void)check_gradients(naive);
}

TEST_CASE("A router of zeros sends every token to the first experts", "[model][experts]") {
  using Net = NetOf<TopK<2>, SharedExperts<2>>;
  test::NaiveLoss<Net> naive({2, 3});
  for (double& weight : tensor(naive, "layers.1.mixer.router.weight")) weight = 0;
  CHECK(load(naive) == std::vector<double>{6, 6, 0, 0, 0});
  (void)test::check_same_gradients(naive);
}

TEST_CASE("Without a slot all tokens are dropped", "[model][experts]") {
  using Net = NetOf<TopK<1>, FloorCapacity<1, 4>>;  // floor(1/4 · 12 / 5) = 0
  test::NaiveLoss<Net> naive({2, 6});
  make_rows_alike(naive);
  CHECK(naive.forward().routers[0].dropped == 12);
  (void)check_gradients(naive);
}

TEST_CASE("With one slot per expert all tokens but the earliest are dropped", "[model][experts]") {
  using Net = NetOf<TopK<1>, Capacity<1, 4>>;  // ceil(1/4 · 12 / 5) = 1 slot each
  test::NaiveLoss<Net> naive({2, 6});
  make_rows_alike(naive);
  const auto router = tensor(naive, "layers.1.mixer.router.weight");
  for (std::size_t i = 0; i < router.size(); ++i) router[i] = i / 5 == 2 ? 0.5 : -0.1;
  CHECK(load(naive) == std::vector<double>{0, 0, 12, 0, 0});
  CHECK(naive.forward().routers[0].dropped == 11);
  (void)check_gradients(naive);
}
