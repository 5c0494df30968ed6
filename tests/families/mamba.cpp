// Mamba against transformers' MambaForCausalLM.
#include "families/fixture.hpp"

using namespace moe_mamba;
using test::check_fixture;

TEST_CASE("Mamba of one inner channel a channel and step rank 1 is that of transformers", "[families][mamba]") {
  using Net =
      LanguageModel<Vocabulary<16>, Width<12>, Repeat<2, Mamba<State<3>, Convolution<3>, Expand<1>, StepRank<1>>>>;
  check_fixture<Net>("mamba");
}

TEST_CASE("Mamba with biases and a head of its own is that of transformers", "[families][mamba]") {
  using Norm = RmsNorm<Epsilon<1, 1'000'000>>;
  using Net = LanguageModel<Vocabulary<11>, Width<10>, Head, PreNorm<Norm>, FinalNorm<Norm>,
                            Repeat<2, Mamba<State<3>, ProjectionBias, NoConvolutionBias>>>;
  check_fixture<Net>("mamba_biases");
}

TEST_CASE("Mamba of one state and two taps over one step is that of transformers", "[families][mamba]") {
  using Net = LanguageModel<Vocabulary<5>, Width<7>, Repeat<3, Mamba<State<1>, Convolution<2>>>>;
  check_fixture<Net>("mamba_step");
}

TEST_CASE("Mamba of 96 states is that of transformers", "[families][mamba]") {
  using Net = LanguageModel<Vocabulary<7>, Width<9>, Mamba<State<96>, Expand<1>, StepRank<2>>>;
  check_fixture<Net>("mamba_states");
}

TEST_CASE("Mamba over 1031 steps is that of transformers", "[families][mamba]") {
  using Net = LanguageModel<Vocabulary<6>, Width<6>, Mamba<State<3>, Convolution<3>>>;
  check_fixture<Net>("mamba_long");
}
