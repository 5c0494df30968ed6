#include "moe_mamba/language/spelling.hpp"

#include <algorithm>
#include <string>

#include "support/catch.hpp"

using namespace moe_mamba;

namespace {

template <int N>
struct Bound {};
template <class Limit, bool Signed>
struct Gain {
  template <int W>
  using Layer = MlpLayer<W, 4, Relu>;
};
struct Swish : Silu {};

template <class... Arguments>
using Net = LanguageModel<Vocabulary<11>, Width<32>, Arguments...>;

template <class... Arguments>
std::string body() {
  const std::string text = spelling<Net<Arguments...>>(), start = "LanguageModel<Vocabulary<11>, Width<32>, ";
  REQUIRE(text.starts_with(start));
  return text.substr(start.size(), text.size() - start.size() - 1);
}

}  // namespace

TEST_CASE("Definitions that mean the same are spelled the same", "[model]") {
  CHECK(body<Mamba<>>() == "Mamba<>");
  CHECK(body<Mamba<StepRank<2>, Expand<2>, State<16>, Convolution<4>, InnerNorm<NoNorm>>>() == "Mamba<>");
  CHECK(body<Mlp<Hidden<128>, Relu>>() == "Mlp<>");
  CHECK(body<Attention<Context<8>, Heads<4>, HeadWidth<8>, KeyValueHeads<4>, Rotary<10000>, RotaryWidth<8>>>() ==
        "Attention<Heads<4>, Context<8>>");
  CHECK(body<Moe<SoftmaxThenTopK, Experts<4>, TopK<1>, Hidden<128>, SharedExperts<0>, Relu>>() == "Moe<Experts<4>>");
  CHECK(body<Moe<Experts<4>, Capacity<10, 8>>>() == "Moe<Experts<4>, Capacity<5, 4>>");
  CHECK(body<PreNorm<RmsNorm<Epsilon<10, 1000000>>>, Mamba<>>() == "Mamba<>");
  CHECK(body<Residual<RmsNorm<>, Mamba<>>>() == "Mamba<>");
  CHECK(body<PreNorm<NoNorm>, Residual<RmsNorm<>, Mamba<>>>() == "Mamba<>");
  CHECK(body<Residual<NoNorm, Mamba<>>>() == "PreNorm<NoNorm>, Mamba<>");
  CHECK(body<Mamba<>, Mamba<>, Sequence<Mamba<>>, Repeat<2, Mamba<>>>() == "Repeat<5, Mamba<>>");
  CHECK(body<Repeat<2, Mamba<>, Mlp<>>, Mamba<>, Mlp<>>() == "Repeat<3, Mamba<>, Mlp<>>");
  CHECK(body<Repeat<2, Mamba<>>, Mlp<>>() == "Repeat<2, Mamba<>>, Mlp<>");
  CHECK(body<TiedHead, SumAuxiliaryLosses, Mamba<>>() == "Mamba<>");
  CHECK(spelling<LanguageModel<Mamba<>, Width<32>, Vocabulary<11>>>() == spelling<Net<Mamba<>>>());
}

TEST_CASE("Every option that changes what is computed changes the text", "[model]") {
  const std::string texts[] = {
      body<Mamba<>>(),
      body<Mamba<State<8>>>(),
      body<Mamba<Convolution<3>>>(),
      body<Mamba<Expand<1>>>(),
      body<Mamba<StepRank<3>>>(),
      body<Mamba<InnerNorm<RmsNorm<>>>>(),
      body<Mamba<InnerNorm<RmsNorm<NoGain>>>>(),
      body<Mamba<ProjectionBias>>(),
      body<Mamba<NoConvolutionBias>>(),
      body<Head, Mamba<>>(),
      body<FinalNorm<LayerNorm<>>, Mamba<>>(),
      body<FinalNorm<RmsNorm<Epsilon<1, 1000>>>, Mamba<>>(),
      body<PreNorm<LayerNorm<>>, Mamba<>>(),
      body<PreNorm<LayerNorm<Epsilon<1, 1000>>>, Mamba<>>(),
      body<Mamba<>, RmsNorm<>>(),
      body<RmsNorm<>, Mamba<>>(),
      body<Mamba<>, Residual<NoNorm, Mamba<>>>(),
      body<Mlp<>>(),
      body<Mlp<Hidden<64>>>(),
      body<Mlp<SwiGlu>>(),
      body<Mlp<GeGlu>>(),
      body<Mlp<Gelu>>(),
      body<Mlp<Silu>>(),
      body<Mlp<SquaredRelu>>(),
      body<Mlp<Swish>>(),
      body<Attention<Heads<4>, Context<8>>>(),
      body<Attention<Heads<4>, Context<9>>>(),
      body<Attention<Heads<8>, Context<8>>>(),
      body<Attention<Heads<4>, Context<8>, KeyValueHeads<2>>>(),
      body<Attention<Heads<4>, Context<8>, HeadWidth<16>>>(),
      body<Attention<Heads<4>, Context<8>, Rotary<20000>>>(),
      body<Attention<Heads<4>, Context<8>, RotaryWidth<4>>>(),
      body<Attention<Heads<4>, Context<8>, NoPositions>>(),
      body<Attention<Heads<4>, Context<8>, InputBiases>>(),
      body<Attention<Heads<4>, Context<8>, Biases>>(),
      body<Moe<Experts<4>>>(),
      body<Moe<Experts<5>>>(),
      body<Moe<Experts<4>, TopK<2>>>(),
      body<Moe<Experts<4>, TopK<2>, TopKThenSoftmax>>(),
      body<Moe<Experts<4>, SigmoidThenTopK>>(),
      body<Moe<Experts<4>, RouterBias>>(),
      body<Moe<Experts<4>, Hidden<64>>>(),
      body<Moe<Experts<4>, SharedExperts<1>>>(),
      body<Moe<Experts<4>, Capacity<1>>>(),
      body<Moe<Experts<4>, Gelu>>(),
      body<Parallel<Mamba<>, Mlp<>>>(),
      body<Parallel<Mlp<>, Mamba<>>>(),
      body<Mamba<>, Mlp<>>(),
      body<Mlp<>, Mamba<>>(),
      body<Gain<Bound<3>, true>>(),
      body<Gain<Bound<4>, true>>(),
      body<Gain<Bound<3>, false>>(),
  };
  for (const auto& text : texts) {
    INFO(text);
    CHECK(std::count(std::begin(texts), std::end(texts), text) == 1);
  }
}

TEST_CASE("Weights of auxiliary losses are spelled where they are asked for", "[model]") {
  using Usual = Net<Repeat<2, Moe<Experts<4>>>>;
  using Other = Net<AverageAuxiliaryLosses, Repeat<2, Moe<Experts<4>, BalanceLoss<1, 50>, ZLoss<2, 2000>>>>;
  CHECK(spelling<Usual>() == spelling<Other>());
  CHECK(spelling<Usual>(AuxiliaryLosses::spelled) == spelling<Usual>());
  CHECK(spelling<Other>(AuxiliaryLosses::spelled) ==
        "LanguageModel<Vocabulary<11>, Width<32>, AverageAuxiliaryLosses, "
        "Repeat<2, Moe<Experts<4>, BalanceLoss<1, 50>, ZLoss<1, 1000>>>>");
}

TEST_CASE("Models of series, and types of a program's own, are spelled by their names", "[model]") {
  CHECK(spelling<SequenceModel<Outputs<2>, Inputs<3>, Width<8>, Mamba<State<4>>>>() ==
        "SequenceModel<Inputs<3>, Outputs<2>, Width<8>, Mamba<State<4>>>");
  CHECK(body<Gain<Bound<3>, true>>() == "Gain<Bound<3>, true>");
  CHECK(body<Mlp<Swish>>() == "Mlp<Swish>");
}
