// Gradients of models with all options of mixtures of experts.
#include "model/gradient_check.hpp"

using namespace moe_mamba;

TEMPLATE_TEST_CASE("The gradient of a model with all options of mixtures agrees with finite differences", "[model]",
                   test::ManyWaysNet, test::CapacityNet, test::FamilyWaysNet) {
  for (const Shape shape : {Shape{1, 1}, Shape{2, 5}}) test::check_model_gradient<TestType>(shape);
}
