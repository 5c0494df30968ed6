// Sizes around every edge: lengths, odd widths, numbers of states, of experts, of taps.
#include "model/forward_check.hpp"

using namespace moe_mamba;

TEMPLATE_TEST_CASE("Lengths around every edge compute what the formulas say", "[model][shapes]", test::OneWide,
                   test::ManyStates, test::AllExperts, test::ManyInputs) {
  const std::vector<Shape> shapes{{1, 0}, {2, 1}, {3, 2}, {1, 63}, {2, 64}, {1, 65}, {2, 129}};
  // Roundings of 2⁻⁵³ and 2⁻²⁴; the longest sums have some hundred terms.
  test::check_model_forward<TestType, double>(shapes, 1e-12);
  test::check_model_forward<TestType, float>(shapes, 1e-4);
}
