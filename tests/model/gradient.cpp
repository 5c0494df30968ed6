// Gradients of language models.
#include "model/gradient_check.hpp"

using namespace moe_mamba;

TEMPLATE_TEST_CASE("A model's gradient agrees with finite differences and with the reference backend", "[model]",
                   test::MambaNet, test::MixtureNet, test::AttentionNet) {
  for (const Shape shape : {Shape{1, 1}, Shape{2, 5}}) test::check_model_gradient<TestType>(shape);
}

TEST_CASE("Masked targets have no gradient", "[model]") {
  using Net = test::MixtureNet;
  test::NaiveLoss<Net> naive({2, 5});
  for (const std::size_t masked : {0u, 6u, 9u}) naive.batch.targets[masked] = masked_target;
  auto device = test::open();
  test::Bench<Net> bench(device, {2, 5}, naive.values);
  std::vector<double> gradients(static_cast<std::size_t>(Net::parameters));
  auto states = naive.states, dstates = naive.dstates;
  (void)bench.gradient(naive.batch, gradients, &states, &dstates);
  test::check_all_gradients(naive, gradients, 0, dstates,
                            [&](std::uint64_t& decisions) { return naive.loss(decisions); });
}

TEST_CASE("Gradients add up over calls", "[model]") {
  using Net = test::MixtureNet;
  auto device = test::open();
  test::Bench<Net> bench(device, {2, 5}, test::parameters<Net>());
  const auto a = test::data<Net, double>({2, 5}, 1), b = test::data<Net, double>({1, 4}, 2);
  const auto first = bench.gradient(a), second = bench.gradient(b);
  std::vector<double> both(first.size()), sum(first.size());
  (void)bench.gradient(a, both);
  (void)bench.gradient(b, both);
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] = first[i] + second[i];
  CHECK(test::relative_error(both, sum) <= 1e-14);
}

TEST_CASE("backward() from the loss's gradient with respect to the logits is gradient()", "[model]") {
  using Net = test::MixtureNet;
  const Shape shape{2, 5};
  auto device = test::open();
  test::Bench<Net> bench(device, shape, test::parameters<Net>());
  const auto data = test::data<Net, double>(shape);
  const auto expected = bench.gradient(data);

  auto doutputs = bench.forward(data.inputs, shape);
  for (Index t = 0; t < shape.tokens(); ++t) {
    double* row = doutputs.data() + t * Net::vocabulary;
    double total = 0;
    for (Index v = 0; v < Net::vocabulary; ++v) total += std::exp(row[v]);
    for (Index v = 0; v < Net::vocabulary; ++v) row[v] = std::exp(row[v]) / total / static_cast<double>(shape.tokens());
    row[data.targets[static_cast<std::size_t>(t)]] -= 1.0 / static_cast<double>(shape.tokens());
  }
  std::vector<double> gradients(expected.size());
  bench.backward(doutputs, gradients);
  CHECK(test::relative_error(gradients, expected) <= 1e-13);
}
