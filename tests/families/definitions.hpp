#pragma once

#include "moe_mamba/language/attention.hpp"
#include "moe_mamba/language/language_model.hpp"
#include "moe_mamba/language/mamba.hpp"
#include "moe_mamba/language/mlp.hpp"
#include "moe_mamba/language/moe.hpp"
#include "moe_mamba/language/norm.hpp"

/// The definitions of the folders in tests/fixtures, for tests that open the same ones. Without balance losses, which
/// the reference omits.
namespace test {

using namespace moe_mamba;

using SmallNorm = RmsNorm<Epsilon<1, 1'000'000>>;

using SmallMamba =
    LanguageModel<Vocabulary<16>, Width<12>, Repeat<2, Mamba<State<3>, Convolution<3>, Expand<1>, StepRank<1>>>>;
using MambaWithBiases = LanguageModel<Vocabulary<11>, Width<10>, Head, PreNorm<SmallNorm>, FinalNorm<SmallNorm>,
                                      Repeat<2, Mamba<State<3>, ProjectionBias, NoConvolutionBias>>>;
using MambaOfOneState = LanguageModel<Vocabulary<5>, Width<7>, Repeat<3, Mamba<State<1>, Convolution<2>>>>;
using MambaOfManyStates = LanguageModel<Vocabulary<7>, Width<9>, Mamba<State<96>, Expand<1>, StepRank<2>>>;
using LongMamba = LanguageModel<Vocabulary<6>, Width<6>, Mamba<State<3>, Convolution<3>>>;

using SmallFalconMamba =
    LanguageModel<Vocabulary<13>, Width<20>, Head,
                  Repeat<2, Mamba<State<3>, Expand<1>, InnerNorm<RmsNorm<NoGain, Epsilon<1, 1'000'000>>>>>>;
using InnerFalconMamba =
    LanguageModel<Vocabulary<8>, Width<10>,
                  Mamba<State<3>, Convolution<2>, StepRank<3>, InnerNorm<RmsNorm<NoGain, Epsilon<1, 1000>>>>>;

using SmallBlackMamba = LanguageModel<
    Vocabulary<17>, Width<12>, FinalNorm<LayerNorm<>>,
    Repeat<2, Mamba<State<3>>, Moe<Experts<5>, Hidden<7>, GeGlu, SigmoidThenTopK, RouterBias, BalanceLoss<0>>>>;

using SmallMixtral =
    LanguageModel<Vocabulary<16>, Width<12>, Head,
                  Repeat<2, Attention<Heads<4>, KeyValueHeads<2>, HeadWidth<6>, Context<40>, Rotary<100>>,
                         Moe<Experts<5>, TopK<2>, Hidden<7>, SwiGlu, TopKThenSoftmax, BalanceLoss<0>>>>;
using SmallMixtralWindow =
    LanguageModel<Vocabulary<11>, Width<20>, PreNorm<RmsNorm<Epsilon<1, 1000>>>, FinalNorm<RmsNorm<Epsilon<1, 1000>>>,
                  Repeat<2, Attention<Heads<2>, KeyValueHeads<1>, Context<5>, Rotary<1'000'000>>,
                         Moe<Experts<3>, TopK<3>, Hidden<9>, SwiGlu, TopKThenSoftmax, BalanceLoss<0>>>>;

using MixtralOfOneStep =
    LanguageModel<Vocabulary<7>, Width<6>, Head, Attention<Heads<3>, Context<8>, Rotary<1'000'000>>,
                  Moe<Experts<4>, TopK<2>, Hidden<5>, SwiGlu, TopKThenSoftmax, BalanceLoss<0>>>;

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
using JambaOfOneStep =
    LanguageModel<Vocabulary<5>, Width<9>, Head, PreNorm<SmallNorm>, FinalNorm<SmallNorm>,
                  Mamba<State<3>, Convolution<2>, InnerNorm<SmallNorm>>,
                  Moe<Experts<3>, Hidden<5>, SwiGlu, BalanceLoss<0>>,
                  Attention<Heads<3>, KeyValueHeads<1>, Context<8>, NoPositions>, Mlp<Hidden<5>, SwiGlu>>;

using SmallLlama = LanguageModel<Vocabulary<11>, Width<12>, Head, PreNorm<SmallNorm>, FinalNorm<SmallNorm>,
                                 Repeat<2, Attention<Heads<3>, Context<40>, Biases>, Mlp<Hidden<7>, SwiGlu>>>;
using SmallMistral = LanguageModel<
    Vocabulary<9>, Width<12>, Head, PreNorm<SmallNorm>, FinalNorm<SmallNorm>,
    Repeat<2, Attention<Heads<6>, KeyValueHeads<2>, HeadWidth<4>, Context<7>, Rotary<1000>>, Mlp<Hidden<9>, SwiGlu>>>;
using SmallQwen2 =
    LanguageModel<Vocabulary<13>, Width<14>, PreNorm<SmallNorm>, FinalNorm<SmallNorm>,
                  Attention<Heads<7>, KeyValueHeads<1>, Context<40>, InputBiases>, Mlp<Hidden<8>, SwiGlu>>;

// Others, with parameters stored as float.

using DeepMamba = LanguageModel<Vocabulary<13>, Width<20>, Repeat<3, Mamba<State<3>, Expand<1>>>>;
using ShallowMamba = LanguageModel<Vocabulary<13>, Width<20>, Repeat<2, Mamba<State<3>, Expand<1>>>>;
using OtherMambaWithBiases =
    LanguageModel<Vocabulary<11>, Width<10>, Head, PreNorm<RmsNorm<Epsilon<1, 1000>>>,
                  FinalNorm<RmsNorm<Epsilon<1, 1000>>>, Mamba<State<3>, ProjectionBias, NoConvolutionBias>>;
using OtherBlackMamba = LanguageModel<Vocabulary<17>, Width<12>, FinalNorm<LayerNorm<>>, Mamba<State<3>>,
                                      Moe<Experts<5>, Hidden<7>, GeGlu, SigmoidThenTopK, RouterBias>>;
/// Jamba without attention, and Jamba without Mamba.
using JambaOfMamba = LanguageModel<Vocabulary<9>, Width<6>, PreNorm<SmallNorm>, FinalNorm<SmallNorm>,
                                   Repeat<3, Mamba<State<2>, InnerNorm<SmallNorm>>, Mlp<Hidden<5>, SwiGlu>>>;
using JambaOfAttention = LanguageModel<Vocabulary<9>, Width<6>, Head, Attention<Heads<2>, Context<16>, NoPositions>,
                                       Moe<Experts<3>, TopK<2>, Hidden<5>, SwiGlu>>;

}  // namespace test
