// Gradients of models of series, including those with respect to inputs.
#include "model/gradient_check.hpp"

using namespace moe_mamba;
using Net = test::SeriesNet;

TEST_CASE("The gradient of a model of series agrees with finite differences", "[model]") {
  for (const Shape shape : {Shape{1, 1}, Shape{2, 5}}) test::check_model_gradient<Net>(shape);
}

TEST_CASE("backward() of a model of series gives the gradient with respect to inputs, states and parameters",
          "[model]") {
  const Shape shape{2, 5};
  test::NaiveLoss<Net> naive(shape);
  const auto doutputs = test::uniform<double>(shape.tokens() * Net::output_width, 5);
  const auto objective = [&](std::uint64_t& decisions) {
    const naive::Outcome outcome = naive.forward();
    decisions = outcome.decisions;
    double sum = naive.rest(outcome);
    for (std::size_t i = 0; i < doutputs.size(); ++i) sum += doutputs[i] * outcome.outputs.values[i];
    return sum;
  };

  auto device = test::open(2);
  test::Bench<Net> bench(device, shape, naive.values);
  std::vector<double> gradients(static_cast<std::size_t>(Net::parameters));
  auto dinputs = test::poison<double>(shape.tokens() * Net::input_width);
  auto states = naive.states, dstates = naive.dstates;
  (void)bench.forward(naive.batch.inputs, shape, &states);
  bench.backward(doutputs, gradients, dinputs, &dstates);
  test::check_all_gradients(naive, gradients, 0, dstates, objective);
  INFO("gradient w.r.t. the inputs");
  test::check_gradient(naive.batch.inputs, dinputs.data(), 0, 1, objective);

  // Omitting optional gradients does not change the others.
  std::vector<double> alone(gradients.size());
  states = naive.states;
  (void)bench.forward(naive.batch.inputs, shape, &states);
  auto again = naive.dstates;
  bench.backward(doutputs, alone, {}, &again);
  CHECK(alone == gradients);
  CHECK(again == dstates);
}
