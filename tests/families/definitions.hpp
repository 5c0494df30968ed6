#pragma once

#include "moe_mamba/moe_mamba.hpp"

/// What the folders of tests/fixtures hold, for tests that open the same ones. Without balance losses, which the reference
/// leaves out.
namespace test {

using namespace moe_mamba;

using SmallMamba =
    LanguageModel<Vocabulary<16>, Width<12>, Repeat<2, Mamba<State<3>, Convolution<3>, Expand<1>, StepRank<1>>>>;
using SmallFalconMamba =
    LanguageModel<Vocabulary<13>, Width<20>, Head,
                  Repeat<2, Mamba<State<3>, Expand<1>, InnerNorm<RmsNorm<NoGain, Epsilon<1, 1'000'000>>>>>>;

using SmallMixtral =
    LanguageModel<Vocabulary<16>, Width<12>, Head,
                  Repeat<2, Attention<Heads<4>, KeyValueHeads<2>, HeadWidth<6>, Context<40>, Rotary<100>>,
                         Moe<Experts<5>, TopK<2>, Hidden<7>, SwiGlu, TopKThenSoftmax, BalanceLoss<0>>>>;
using SmallMixtralWindow =
    LanguageModel<Vocabulary<11>, Width<20>, PreNorm<RmsNorm<Epsilon<1, 1000>>>, FinalNorm<RmsNorm<Epsilon<1, 1000>>>,
                  Repeat<2, Attention<Heads<2>, KeyValueHeads<1>, Context<5>, Rotary<1'000'000>>,
                         Moe<Experts<3>, TopK<3>, Hidden<9>, SwiGlu, TopKThenSoftmax, BalanceLoss<0>>>>;

using SmallNorm = RmsNorm<Epsilon<1, 1'000'000>>;

using SmallJambaMamba = Mamba<State<3>, Convolution<3>, Expand<1>, InnerNorm<SmallNorm>>;
using SmallJambaMoe = Moe<Experts<5>, TopK<2>, Hidden<7>, SwiGlu, BalanceLoss<0>>;
using SmallJamba = LanguageModel<Vocabulary<13>, Width<12>, Head, PreNorm<SmallNorm>, FinalNorm<SmallNorm>,
                                 SmallJambaMamba, Mlp<Hidden<7>, SwiGlu>, SmallJambaMamba, SmallJambaMoe,
                                 Attention<Heads<4>, KeyValueHeads<2>, Context<40>, NoPositions>,
                                 Mlp<Hidden<7>, SwiGlu>, SmallJambaMamba, SmallJambaMoe>;
using SmallJambaDense =
    LanguageModel<Vocabulary<9>, Width<10>, PreNorm<SmallNorm>, FinalNorm<SmallNorm>,
                  Attention<Heads<2>, KeyValueHeads<1>, Context<40>, NoPositions>, Mlp<Hidden<6>, SwiGlu>,
                  Mamba<State<2>, StepRank<3>, InnerNorm<SmallNorm>, ProjectionBias, NoConvolutionBias>,
                  Mlp<Hidden<6>, SwiGlu>>;

using SmallLlama = LanguageModel<Vocabulary<11>, Width<12>, Head, PreNorm<SmallNorm>, FinalNorm<SmallNorm>,
                                 Repeat<2, Attention<Heads<3>, Context<40>, Biases>, Mlp<Hidden<7>, SwiGlu>>>;
using SmallMistral = LanguageModel<
    Vocabulary<9>, Width<12>, Head, PreNorm<SmallNorm>, FinalNorm<SmallNorm>,
    Repeat<2, Attention<Heads<6>, KeyValueHeads<2>, HeadWidth<4>, Context<7>, Rotary<1000>>, Mlp<Hidden<9>, SwiGlu>>>;
using SmallQwen2 =
    LanguageModel<Vocabulary<13>, Width<14>, PreNorm<SmallNorm>, FinalNorm<SmallNorm>,
                  Attention<Heads<7>, KeyValueHeads<1>, Context<40>, InputBiases>, Mlp<Hidden<8>, SwiGlu>>;

}  // namespace test
