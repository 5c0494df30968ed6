// Sizes around every edge: lengths, odd widths, numbers of states, of experts and of taps.
#include "model/forward_check.hpp"
#include "model/gradient_check.hpp"

using namespace moe_mamba;

namespace {

using OneWide = LanguageModel<Vocabulary<1>, Width<1>, Mamba<State<1>, Convolution<1>, Expand<1>>, Mlp<Hidden<1>>>;
using ManyStates =
    LanguageModel<Vocabulary<3>, Width<5>, Mamba<State<64>, Expand<1>>, Moe<Experts<1>, Hidden<2>, Silu>>;
using AllExperts = LanguageModel<Vocabulary<65>, Width<17>, Mamba<State<16>, Convolution<2>>,
                                 Moe<Experts<9>, TopK<9>, Hidden<5>, Gelu>>;
using ManyInputs = SequenceModel<Inputs<33>, Outputs<1>, Width<9>, Mamba<State<3>, Expand<3>, Convolution<7>>>;

}  // namespace

TEMPLATE_TEST_CASE("Lengths around every edge compute what the formulas say", "[model][shapes]", OneWide, ManyStates,
                   AllExperts, ManyInputs) {
  const std::vector<Shape> shapes{{1, 0}, {2, 1}, {3, 2}, {1, 63}, {2, 64}, {1, 65}, {2, 129}};
  // Roundings of 2⁻⁵³ and 2⁻²⁴; the longest sums have some hundred terms.
  test::check_model_forward<TestType, double>(shapes, 1e-12);
  test::check_model_forward<TestType, float>(shapes, 1e-4);
}

TEMPLATE_TEST_CASE("Lengths around every edge have the reference backend's gradients", "[model][shapes]", OneWide,
                   ManyStates, AllExperts, ManyInputs) {
  for (const Shape shape : {Shape{1, 0}, Shape{2, 1}, Shape{3, 2}, Shape{1, 63}, Shape{2, 64}, Shape{1, 65}}) {
    INFO("B = " << shape.batch << ", L = " << shape.length);
    (void)test::check_same_gradients(test::NaiveLoss<TestType>(shape));
  }
}
