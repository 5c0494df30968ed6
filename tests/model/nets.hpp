#pragma once

#include "moe_mamba/language/attention.hpp"
#include "moe_mamba/language/language_model.hpp"
#include "moe_mamba/language/mamba.hpp"
#include "moe_mamba/language/mlp.hpp"
#include "moe_mamba/language/moe.hpp"
#include "moe_mamba/language/norm.hpp"
#include "moe_mamba/language/parallel.hpp"
#include "moe_mamba/language/sequence_model.hpp"

/// Small models that the tests share. Widths are odd on purpose; numbers of states and of experts recur, so that the
/// models share kernels and compile fast.
namespace test {

using namespace moe_mamba;

/// Mamba layers of two kinds, tied head.
using MambaNet = LanguageModel<Vocabulary<11>, Width<6>, Mamba<State<3>, Expand<1>>,
                               Mamba<State<2>, Convolution<3>, Expand<2>, StepRank<2>>>;

/// The library's main use, in small: Mamba and top-1 experts alternating.
using MixtureNet =
    LanguageModel<Vocabulary<13>, Width<5>,
                  Repeat<2, Mamba<State<3>, Expand<2>>, Moe<Experts<4>, TopK<1>, Hidden<3>, ZLoss<1, 50>>>>;

/// All other options of mixtures: renormalised gates, shared experts, all experts, gated activations, averaged losses,
/// experts inside a Mamba block.
using ManyWaysNet =
    LanguageModel<Vocabulary<7>, Width<5>, Head, AverageAuxiliaryLosses, PreNorm<LayerNorm<>>, FinalNorm<NoNorm>,
                  Moe<Experts<4>, TopK<2>, Hidden<3>, SwiGlu, TopKThenSoftmax, SharedExperts<1>, ZLoss<1, 10>>,
                  LayerNorm<Epsilon<1, 1000>>,
                  Parallel<Mamba<State<2>, InputExperts<3>, GateExperts<3>, OutputExperts<3>, TopK<2>, ZLoss<1, 10>>,
                           Moe<Experts<3>, TopK<3>, Hidden<2>, Gelu, BalanceLoss<1, 5>>>,
                  Residual<NoNorm, Mlp<Hidden<4>, GeGlu>>>;

/// Further options that public families use: inner norms, optional biases, sigmoid gates, a selection bias.
using FamilyWaysNet = LanguageModel<
    Vocabulary<7>, Width<5>, FinalNorm<LayerNorm<>>,
    Mamba<State<2>, InnerNorm<RmsNorm<NoGain, Epsilon<1, 1000>>>, ProjectionBias, NoConvolutionBias>,
    Mamba<State<2>, InnerNorm<RmsNorm<>>>, Moe<Experts<4>, Hidden<3>, GeGlu, SigmoidThenTopK, RouterBias, ZLoss<1, 10>>,
    Moe<Experts<5>, TopK<2>, Hidden<2>, SigmoidThenTopK, NormalisedGates, GateScale<5, 2>, SelectionBias>>;

/// Experts of limited capacity, so the tokens of a batch depend on each other.
using CapacityNet =
    LanguageModel<Vocabulary<7>, Width<5>, Moe<Experts<4>, TopK<2>, Hidden<3>, Silu, Capacity<3, 4>>, RmsNorm<>, Mlp<>>;

/// A model of series.
using SeriesNet = SequenceModel<Inputs<3>, Outputs<2>, Width<5>, Repeat<2, Mamba<State<3>, Expand<2>>>,
                                Moe<Experts<4>, Hidden<4>, Silu>>;

/// Attention of two kinds, after Mamba and in parallel with experts: grouped heads with rotary positions over a window
/// shorter than the tests' sequences, and one head without positions, with biases.
using AttentionNet = LanguageModel<
    Vocabulary<11>, Width<6>,
    Repeat<2, Mamba<State<3>, Expand<1>>, Attention<Heads<4>, KeyValueHeads<2>, HeadWidth<4>, Context<4>>>,
    Parallel<Attention<Heads<2>, Context<7>, NoPositions, Biases>, Mlp<Hidden<3>, Silu>>>;

/// Experts without auxiliary losses, which are means over a call and so differ between chunks or sequences and the
/// whole batch.
using PlainMixture = LanguageModel<
    Vocabulary<7>, Width<5>,
    Repeat<2, Mamba<State<3>, Inner<6>, GateExperts<2>, OutputExperts<3>, SeparateRouters, Hidden<4>, BalanceLoss<0>>,
           Moe<Experts<4>, TopK<2>, Hidden<3>, Silu, BalanceLoss<0>>>>;

// Sizes around every edge: odd widths, numbers of states, of experts, of taps.

using OneWide = LanguageModel<Vocabulary<1>, Width<1>, Mamba<State<1>, Convolution<1>, Expand<1>>, Mlp<Hidden<1>>>;
using ManyStates =
    LanguageModel<Vocabulary<3>, Width<5>, Mamba<State<64>, Expand<1>>, Moe<Experts<1>, Hidden<2>, Silu>>;
using AllExperts = LanguageModel<Vocabulary<65>, Width<17>, Mamba<State<16>, Convolution<2>>,
                                 Moe<Experts<9>, TopK<9>, Hidden<5>, Gelu>>;
using ManyInputs = SequenceModel<Inputs<33>, Outputs<1>, Width<9>, Mamba<State<3>, Expand<3>, Convolution<7>>>;

// Models that are trained.

/// Routers of several sizes with selection biases that balance their loads: parallel, repeated, with both kinds of
/// scores.
using BalancedNet = LanguageModel<
    Vocabulary<11>, Width<6>,
    Parallel<Moe<Experts<4>, TopK<2>, Hidden<3>, SigmoidThenTopK, NormalisedGates, GateScale<5, 2>, SelectionBias>,
             Moe<Experts<3>, Hidden<2>>>,
    Repeat<2, Mlp<Hidden<5>>, Moe<Experts<7>, TopK<2>, Hidden<3>, BalanceLoss<0>, RouterBias, SelectionBias>>>;

using TrainedNet = LanguageModel<Vocabulary<11>, Width<8>, Repeat<2, Mamba<State<3>>, Moe<Experts<4>, Hidden<12>>>>;

/// Sizes that are not multiples of a vector, and a last parameter with weight decay.
using OddNet = LanguageModel<Vocabulary<11>, Width<5>, Head, Mamba<State<3>, Expand<1>>, Moe<Experts<3>, Hidden<7>>>;

/// Without a balance loss.
using UnbalancedNet =
    LanguageModel<Vocabulary<11>, Width<8>, Mamba<State<3>>, Moe<Experts<4>, Hidden<12>, BalanceLoss<0>>>;

/// A model of series with one number in and one out.
using FilterNet = SequenceModel<Inputs<1>, Outputs<1>, Width<8>, Mamba<State<4>>>;

/// A model that generates text.
using WritingNet =
    LanguageModel<Vocabulary<19>, Width<12>, Repeat<2, Mamba<State<5>>, Moe<Experts<3>, Hidden<16>>>, Head>;

}  // namespace test
