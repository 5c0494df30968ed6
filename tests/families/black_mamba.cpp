// BlackMamba against an implementation from its formulas, tests/fixtures/black_mamba.py.
#include "families/fixture.hpp"

using namespace moe_mamba;

TEST_CASE("BlackMamba is what its formulas say", "[families][black_mamba]") {
  using Experts5 = Moe<Experts<5>, Hidden<7>, GeGlu, SigmoidThenTopK, RouterBias, BalanceLoss<0>>;
  using Net = LanguageModel<Vocabulary<17>, Width<12>, FinalNorm<LayerNorm<>>, Repeat<2, Mamba<State<3>>, Experts5>>;
  test::check_fixture<Net>("black_mamba");
}
