#pragma once

#include "published.hpp"
#include "systems.hpp"

/// What --cuda trains, shared by the program and its kernels.
namespace paper {

using Width64 = Size<64, 8>;
using Width128 = Size<128, 8>;
using Width256 = Size<256, 8>;

template <class Size>
using Plain = typename Size::PlainMamba;
template <class Size>
using Mixture = Within<MoeMamba<Size, 32>, Size::budget>;

/// The paper's models of 25 million active parameters over bytes.
template <class... Body>
using Full = LanguageModel<Vocabulary<256>, Width<512>, Head, PreNorm<LayerNorm<>>, FinalNorm<NoNorm>,
                           AverageAuxiliaryLosses, Body...>;
using FullPlain = Full<Repeat<16, Mamba<>>>;
using FullMixture = Full<Repeat<8, Mamba<>, Moe<Experts<42>, Hidden<1536>, Capacity<1>>>>;

}  // namespace paper
