#pragma once

#include "moe_mamba/language/attention.hpp"
#include "moe_mamba/language/language_model.hpp"
#include "moe_mamba/language/mamba.hpp"
#include "moe_mamba/language/mlp.hpp"
#include "moe_mamba/language/moe.hpp"
#include "moe_mamba/language/norm.hpp"
#include "moe_mamba/model/cost.hpp"

/// The models of the paper's tables, as types: Pióro et al. 2024, arXiv 2401.04081, version 2, table 5 (and section 4.1 of
/// version 1). A layer norm before every layer and none at the end, embedding and head apart, as in the published code;
/// dense layers of the Transformers without the biases that the code has.
namespace paper {

using namespace moe_mamba;

/// A model over the GPT-2 tokenizer's vocabulary.
template <int D, class... Body>
using Published = LanguageModel<Vocabulary<50257>, Width<D>, Head, PreNorm<LayerNorm<>>, FinalNorm<NoNorm>,
                                AverageAuxiliaryLosses, Body...>;

/// Whether a definition has as many parameters in all and for each token as the paper says, in millions, without embedding and
/// head: the published numbers are rounded, some of them down.
template <class Definition>
constexpr bool is_published(Index total, Index active) {
  constexpr Index table = Index{50257} * Definition::width, row = Definition::width;
  const auto rounds_to = [](Index parameters, Index millions) {
    return parameters / 1'000'000 == millions || (parameters + 500'000) / 1'000'000 == millions;
  };
  return rounds_to(cost<Definition>.parameters - 2 * table, total) &&
         rounds_to(cost<Definition>.active_parameters - table - row, active);
}

using Mamba25M = Published<512, Repeat<16, Mamba<>>>;
using MoeMamba25M = Published<512, Repeat<8, Mamba<>, Moe<Experts<42>, Hidden<1536>, Capacity<1>>>>;
using Transformer25M = Published<512, Repeat<8, Attention<Heads<8>, Context<1024>>, Mlp<Hidden<2048>>>>;
using TransformerMoe25M =
    Published<512, Repeat<8, Attention<Heads<8>, Context<1024>>, Moe<Experts<32>, Hidden<2048>, Capacity<1>>>>;
using Mamba100M = Published<768, Repeat<32, Mamba<>>>;
using MoeMamba100M = Published<768, Repeat<16, Mamba<>, Moe<Experts<42>, Hidden<2304>, Capacity<1>>>>;
using TransformerMoe100M =
    Published<768, Repeat<16, Attention<Heads<12>, Context<1024>>, Moe<Experts<32>, Hidden<3072>, Capacity<1>>>>;

static_assert(is_published<Mamba25M>(27, 27));
static_assert(is_published<MoeMamba25M>(542, 26));
static_assert(is_published<Transformer25M>(25, 25));
static_assert(is_published<TransformerMoe25M>(545, 25));
static_assert(is_published<Mamba100M>(121, 121));
static_assert(is_published<MoeMamba100M>(2439, 117));
static_assert(is_published<TransformerMoe100M>(2454, 114));

/// The numbers of experts of table 4, at the size of 25 million active parameters.
template <int E>
using MoeMamba25MOf = Published<512, Repeat<8, Mamba<>, Moe<Experts<E>, Hidden<1536>, Capacity<1>>>>;
static_assert(is_published<MoeMamba25MOf<1>>(26, 26) && is_published<MoeMamba25MOf<4>>(64, 26));
static_assert(is_published<MoeMamba25MOf<8>>(114, 26) && is_published<MoeMamba25MOf<16>>(215, 26));
static_assert(is_published<MoeMamba25MOf<32>>(416, 26));

/// The ratios of active parameters in Mamba and experts of table 2: inner widths of 2/3 to 10/3 of the width. Its caption says
/// 542M in all; its rows give 403 to 426M.
template <int E, int ExpertCount, int H>
using MoeMamba25MShare = Published<512, Repeat<8, Mamba<Inner<E>>, Moe<Experts<ExpertCount>, Hidden<H>, Capacity<1>>>>;
using OneToFive = MoeMamba25MShare<342, 19, 2560>;
using TwoToFour = MoeMamba25MShare<684, 24, 2048>;
using FourToTwo = MoeMamba25MShare<1366, 48, 1024>;
using FiveToOne = MoeMamba25MShare<1706, 96, 512>;
static_assert(is_published<OneToFive>(403, 26) && is_published<FiveToOne>(426, 27));

}  // namespace paper
