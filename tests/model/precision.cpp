// Models in float and with parameters in bfloat16, against the naive implementation and against double.
#include "model/forward_check.hpp"

using namespace moe_mamba;

namespace {

const std::vector<Shape> shapes{{1, 1}, {3, 9}, {2, 5}, {1, 0}};

}  // namespace

// Parameters and inputs are exact in float; there remain the same roundings, of 2⁻²⁴. None of these draws has two
// experts so close that rounding would choose the other.
TEMPLATE_TEST_CASE("In float a model computes what the formulas say", "[model]", test::MixtureNet, test::ManyWaysNet,
                   test::SeriesNet, test::AttentionNet) {
  test::check_model_forward<TestType, float>(shapes, 3e-5);
}

#if !defined(MOE_MAMBA_TEST_CUDA)  // tensor cores round more: see gpu/models.cpp
// The naive model uses the same rounded parameters; arithmetic is in float.
TEMPLATE_TEST_CASE("With parameters in bfloat16 a model computes what the formulas say for the rounded ones", "[model]",
                   test::MixtureNet, test::SeriesNet, test::AttentionNet) {
  test::check_model_forward<TestType, bfloat16>(shapes, 3e-5);
}

#endif

TEST_CASE("In float a model's gradient is that of double, up to rounding", "[model]") {
  using Net = test::MixtureNet;
  const Shape shape{2, 5};
  auto device = test::open();
  test::Bench<Net> bench(device, shape, test::parameters<Net>());
  test::Bench<Net, float> rounded(device, shape, test::parameters<Net>());
  test::Bench<Net, bfloat16> stored(device, shape, test::parameters<Net>());
  // Forward and backward a few hundred roundings of 2⁻²⁴ each, relative to the largest of all gradients.
  CHECK(test::relative_error(rounded.gradient(test::data<Net, float>(shape)),
                             bench.gradient(test::data<Net, double>(shape))) <= 3e-5);
  if (!test::on_host) return;
  bench.write(test::converted<double>(test::numbers(stored.model)));
  CHECK(test::relative_error(stored.gradient(test::data<Net, float>(shape)),
                             bench.gradient(test::data<Net, double>(shape))) <= 3e-5);
}
