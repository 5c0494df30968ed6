// Falcon-Mamba against transformers' FalconMambaForCausalLM.
#include "families/definitions.hpp"
#include "families/fixture.hpp"

using namespace moe_mamba;

TEST_CASE("Falcon-Mamba is that of transformers", "[families][falcon_mamba]") {
  test::check_fixture<test::SmallFalconMamba>("falcon_mamba");
}

TEST_CASE("Falcon-Mamba whose config says its inner width twice is that of transformers", "[families][falcon_mamba]") {
  using Net = LanguageModel<Vocabulary<8>, Width<10>,
                            Mamba<State<3>, Convolution<2>, StepRank<3>, InnerNorm<RmsNorm<NoGain, Epsilon<1, 1000>>>>>;
  test::check_fixture<Net>("falcon_mamba_inner");
}
