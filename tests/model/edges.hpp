#pragma once

#include "moe_mamba/moe_mamba.hpp"

/// Models of sizes around every edge: odd widths, numbers of states, of experts, of taps.
namespace test {

using namespace moe_mamba;

using OneWide = LanguageModel<Vocabulary<1>, Width<1>, Mamba<State<1>, Convolution<1>, Expand<1>>, Mlp<Hidden<1>>>;
using ManyStates =
    LanguageModel<Vocabulary<3>, Width<5>, Mamba<State<64>, Expand<1>>, Moe<Experts<1>, Hidden<2>, Silu>>;
using AllExperts = LanguageModel<Vocabulary<65>, Width<17>, Mamba<State<16>, Convolution<2>>,
                                 Moe<Experts<9>, TopK<9>, Hidden<5>, Gelu>>;
using ManyInputs = SequenceModel<Inputs<33>, Outputs<1>, Width<9>, Mamba<State<3>, Expand<3>, Convolution<7>>>;

}  // namespace test
