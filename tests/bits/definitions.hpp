#pragma once

#include "moe_mamba/language/attention.hpp"
#include "moe_mamba/language/language_model.hpp"
#include "moe_mamba/language/mamba.hpp"
#include "moe_mamba/language/mlp.hpp"
#include "moe_mamba/language/moe.hpp"
#include "moe_mamba/language/norm.hpp"
#include "moe_mamba/language/parallel.hpp"
#include "moe_mamba/language/sequence_model.hpp"

/// Models that cover every layer and every option with separate code. Their hashes and files are kept in
/// tests/fixtures: definitions may be added, but existing ones must not change.
namespace test::kept {

using namespace moe_mamba;

/// Numbers of states and of taps: one, a few, a multiple of a packet and one more.
using MambaSizes = LanguageModel<Vocabulary<11>, Width<6>, Mamba<State<1>, Convolution<1>, Expand<1>>,
                                 Mamba<State<3>, Convolution<2>, StepRank<2>>, Mamba<State<16>>,
                                 Mamba<State<17>, Convolution<7>, Expand<3>>>;

/// Biases in some places, and inner norms.
using MambaBiases =
    LanguageModel<Vocabulary<11>, Width<7>, Head, Mamba<State<2>, ProjectionBias, NoConvolutionBias>,
                  Mamba<State<4>, InnerNorm<RmsNorm<NoGain, Epsilon<1, 1000>>>, ProjectionBias>,
                  Mamba<State<3>, InnerNorm<RmsNorm<>>, NoConvolutionBias>, Mamba<State<3>, InnerNorm<LayerNorm<>>>>;

/// Experts in the projections of Mamba blocks, with one router per block: in all projections; in those to the
/// convolution and to the gate; and with two matrices in those to the gate and out of the block.
using RoutedMamba =
    LanguageModel<Vocabulary<11>, Width<7>,
                  Mamba<State<3>, InputExperts<4>, GateExperts<4>, OutputExperts<4>, BalanceLoss<0>>,
                  Mamba<State<2>, Inner<10>, InputExperts<3>, GateExperts<3>, TopK<2>, TopKThenSoftmax, RouterBias>,
                  Mamba<State<3>, Expand<1>, GateExperts<3>, OutputExperts<3>, TopK<3>, Hidden<5>, SwiGlu,
                        SigmoidThenTopK, ZLoss<1, 10>>>;

/// The same with a router for each projection: experts of two matrices with limited capacity, as in the paper's code,
/// and of one matrix.
using SeparatelyRoutedMamba = LanguageModel<
    Vocabulary<11>, Width<6>, AverageAuxiliaryLosses,
    Mamba<State<2>, InputExperts<2>, GateExperts<3>, OutputExperts<4>, SeparateRouters, Hidden<7>, Capacity<1>>,
    Mamba<State<3>, Inner<5>, InputExperts<3>, OutputExperts<3>, SeparateRouters, TopK<2>>>;

/// Mamba alternating with top-1 experts, as in the paper.
using Switch =
    LanguageModel<Vocabulary<13>, Width<8>,
                  Repeat<2, Mamba<State<16>, Expand<1>>, Moe<Experts<4>, TopK<1>, Hidden<12>, ZLoss<1, 50>>>>;

/// Several experts per token, gated and not, with shared experts, and all experts.
using SeveralExperts =
    LanguageModel<Vocabulary<11>, Width<7>, Head, AverageAuxiliaryLosses,
                  Moe<Experts<5>, TopK<2>, Hidden<6>, SwiGlu, TopKThenSoftmax, SharedExperts<1>, ZLoss<1, 10>>,
                  Moe<Experts<3>, TopK<3>, Hidden<4>, Gelu, BalanceLoss<1, 5>>,
                  Moe<Experts<4>, TopK<2>, Hidden<5>, SharedExperts<2>, BalanceLoss<0>>>;

/// Experts of limited capacity.
using LimitedExperts =
    LanguageModel<Vocabulary<11>, Width<7>, Moe<Experts<4>, TopK<2>, Hidden<3>, Silu, Capacity<3, 4>>,
                  Moe<Experts<3>, Hidden<5>, SwiGlu, Capacity<5, 4>, SharedExperts<1>>, Mlp<>>;

/// Every order of gates, with and without a router bias.
using Routers = LanguageModel<Vocabulary<11>, Width<7>,
                              Moe<Experts<4>, Hidden<3>, GeGlu, SigmoidThenTopK, RouterBias, ZLoss<1, 10>>,
                              Moe<Experts<18>, TopK<2>, Hidden<2>, SquaredRelu, SigmoidThenTopK>,
                              Moe<Experts<4>, TopK<3>, Hidden<3>, TopKThenSoftmax, RouterBias>,
                              Moe<Experts<4>, TopK<2>, Hidden<3>, SoftmaxThenTopK, RouterBias>>;

/// Selection biases with every order of gates, and gates that are normalised and scaled.
using SelectionBiases =
    LanguageModel<Vocabulary<11>, Width<7>,
                  Moe<Experts<9>, TopK<3>, Hidden<3>, SigmoidThenTopK, NormalisedGates, GateScale<5, 2>, SelectionBias>,
                  Moe<Experts<4>, Hidden<3>, SigmoidThenTopK, SelectionBias, BalanceLoss<0>>,
                  Moe<Experts<4>, TopK<2>, Hidden<3>, SwiGlu, TopKThenSoftmax, SelectionBias, RouterBias>,
                  Moe<Experts<17>, TopK<2>, Hidden<2>, SelectionBias, GateScale<17>>>;

/// Grouped heads, windows shorter than sequences, full, partial and no rotary positions, biases.
using AttentionKinds = LanguageModel<
    Vocabulary<11>, Width<6>, Attention<Heads<4>, KeyValueHeads<2>, HeadWidth<4>, Context<6>>,
    Attention<Heads<2>, Context<64>, NoPositions, Biases>,
    Attention<Heads<3>, KeyValueHeads<1>, HeadWidth<6>, RotaryWidth<2>, Rotary<100>, Context<9>, InputBiases>>;

/// Parallel layers, and layers with their own norms.
using Branches =
    LanguageModel<Vocabulary<11>, Width<6>, Parallel<Mamba<State<2>>, Moe<Experts<3>, Hidden<5>>>,
                  Parallel<Attention<Heads<2>, HeadWidth<4>, Context<7>>, Mlp<Hidden<5>, SwiGlu>>,
                  Residual<NoNorm, Mlp<Hidden<4>>>, RmsNorm<>, Residual<LayerNorm<Epsilon<1, 1000>>, Mamba<State<3>>>>;

/// Every activation of an Mlp, between LayerNorms, without a norm at the end.
using Activations =
    LanguageModel<Vocabulary<11>, Width<7>, PreNorm<LayerNorm<>>, FinalNorm<NoNorm>, Mlp<Hidden<9>, Relu>,
                  Mlp<Hidden<5>, SquaredRelu>, LayerNorm<Epsilon<1, 100>>, Mlp<Hidden<5>, Gelu>, Mlp<Hidden<5>, Silu>,
                  Mlp<Hidden<4>, SwiGlu>, Mlp<Hidden<4>, GeGlu>>;

/// The other norms, in every position of a norm.
using Norms = LanguageModel<Vocabulary<11>, Width<9>, Head, PreNorm<RmsNorm<NoGain>>, FinalNorm<LayerNorm<>>,
                            Mlp<Hidden<6>>, RmsNorm<NoGain, Epsilon<1, 1000>>, Residual<NoNorm, Mamba<State<2>>>,
                            RmsNorm<Epsilon<1, 10>>, Sequence<Mlp<Hidden<3>, Gelu>, Mamba<State<2>>>>;

/// The layers of public families, repeated.
using Hybrid = LanguageModel<Vocabulary<13>, Width<6>, Head, PreNorm<RmsNorm<Epsilon<1, 1'000'000>>>,
                             FinalNorm<RmsNorm<Epsilon<1, 1'000'000>>>,
                             Repeat<2, Mamba<State<16>, Expand<1>, InnerNorm<RmsNorm<>>>, Mlp<Hidden<7>, SwiGlu>,
                                    Attention<Heads<3>, KeyValueHeads<1>, HeadWidth<4>, Context<5>, NoPositions>,
                                    Moe<Experts<4>, TopK<2>, Hidden<5>, SwiGlu, BalanceLoss<0>>>>;

/// A model of series.
using Series =
    SequenceModel<Inputs<3>, Outputs<2>, Width<5>, Repeat<2, Mamba<State<3>>, Moe<Experts<4>, Hidden<6>, Silu>>>;

/// Another, with more inputs than its width, with attention.
using WideSeries = SequenceModel<Inputs<17>, Outputs<1>, Width<6>, FinalNorm<NoNorm>, PreNorm<LayerNorm<>>,
                                 Attention<Heads<3>, Context<8>>, Mamba<State<2>, Expand<1>>, Mlp<Hidden<7>>>;

/// One of everything.
using Smallest =
    LanguageModel<Vocabulary<1>, Width<1>, Mamba<State<1>, Convolution<1>, Expand<1>>, Moe<Experts<1>, Hidden<1>>,
                  Mlp<Hidden<1>>, Attention<Heads<1>, Context<1>, NoPositions>>;

/// Sizes at which operations work in blocks, and which a device's matrix instructions support.
using Large = LanguageModel<Vocabulary<300>, Width<96>, Mamba<State<16>, Expand<3>>,
                            Attention<Heads<4>, KeyValueHeads<2>, HeadWidth<64>, Context<150>>,
                            Moe<Experts<8>, TopK<2>, Hidden<136>, SwiGlu>, Mlp<Hidden<272>>>;

}  // namespace test::kept
