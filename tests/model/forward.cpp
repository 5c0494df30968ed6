// Whole models against the naive implementation.
#include "model/forward_check.hpp"

using namespace moe_mamba;
using test::Bench;

namespace {

const std::vector<Shape> shapes{{1, 1}, {3, 9}, {2, 5}, {1, 0}};

}  // namespace

// Sums in different orders: about a hundred roundings on the longest path through a model, of 2⁻⁵³ each.
TEMPLATE_TEST_CASE("In double a model computes what the formulas say", "[model]", test::MambaNet, test::MixtureNet,
                   test::ManyWaysNet, test::CapacityNet, test::SeriesNet, test::AttentionNet) {
  test::check_model_forward<TestType, double>(shapes, 1e-13);
}

TEST_CASE("Routers are numbered as in the names of their parameters", "[model]") {
  auto device = test::open();
  Bench<test::ManyWaysNet> bench(device, {1, 3}, test::parameters<test::ManyWaysNet>());
  (void)bench.forward({1, 2, 3}, {1, 3});
  std::vector<Index> layers;
  bench.workspace.visit_routers([&](const RouterReport& report) { layers.push_back(report.layer); });
  CHECK(layers == std::vector<Index>{0, 2, 2});
  CHECK(bench.model.parameter("layers.2.mixer.1.router.weight").size() == 15);
}

TEST_CASE("Masked targets are left out of the loss, of the mean and of the gradient", "[model]") {
  using Net = test::MixtureNet;
  auto device = test::open();
  Bench<Net> bench(device, {2, 6}, test::parameters<Net>());
  auto data = test::data<Net, double>({2, 6});
  for (const std::size_t masked : {0u, 3u, 4u, 11u}) data.targets[masked] = masked_target;
  const auto expected = naive::forward<Net>(test::parameters<Net>(), data.inputs, 2, 6,
                                            {2, naive::Vector(naive::at(Net::Body::state_size))});
  const Losses losses = bench.loss(data);
  CHECK(losses.targets == 8);
  CHECK(std::abs(losses.prediction - naive::cross_entropy(expected.outputs, data.targets)) <= 1e-13);

  // The routers' losses cover the same tokens.
  std::vector<bool> counted;
  for (const Token target : data.targets) counted.push_back(target != masked_target);
  const auto of_counted = naive::forward<Net>(test::parameters<Net>(), data.inputs, 2, 6,
                                              {2, naive::Vector(naive::at(Net::Body::state_size))}, counted);
  CHECK(std::abs(losses.auxiliary - of_counted.auxiliary) <= 1e-13);
  CHECK(std::abs(losses.auxiliary - expected.auxiliary) > 1e-6);
  double load = 0;
  bench.workspace.visit_routers([&](const RouterReport& report) {
    for (const double tokens : report.load) load += tokens;
  });
  CHECK(load == 2 * 8);

  // Nothing to predict: no loss and no gradient at all.
  for (auto& target : data.targets) target = masked_target;
  std::vector<double> gradients(static_cast<std::size_t>(Net::parameters));
  const Losses none = bench.gradient(data, gradients);
  CHECK(none.targets == 0);
  CHECK(none.total() == 0);
  CHECK(gradients == std::vector<double>(gradients.size()));
}
