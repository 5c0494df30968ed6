// Gradients at sizes around every edge.
#include "model/gradient_check.hpp"

using namespace moe_mamba;

TEMPLATE_TEST_CASE("Lengths around every edge have the reference backend's gradients", "[model][shapes]", test::OneWide,
                   test::ManyStates, test::AllExperts, test::ManyInputs) {
  for (const Shape shape : {Shape{1, 0}, Shape{2, 1}, Shape{3, 2}, Shape{1, 63}, Shape{2, 64}, Shape{1, 65}}) {
    INFO("B = " << shape.batch << ", L = " << shape.length);
    (void)test::check_same_gradients(test::NaiveLoss<TestType>(shape));
  }
}
