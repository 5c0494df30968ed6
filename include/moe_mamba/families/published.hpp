#pragma once

#include "moe_mamba/language/attention.hpp"
#include "moe_mamba/language/composition.hpp"
#include "moe_mamba/language/language_model.hpp"
#include "moe_mamba/language/mamba.hpp"
#include "moe_mamba/language/mlp.hpp"
#include "moe_mamba/language/moe.hpp"
#include "moe_mamba/language/norm.hpp"

/// Definitions of published models, to load them with:
///
///   auto model = load<published::Mamba130m, bfloat16>(Pretrained{"mamba-130m-hf"});
namespace moe_mamba::inline v0_2::published {

template <int Layers, int W>
using MambaOf = LanguageModel<Vocabulary<50280>, Width<W>, Repeat<Layers, Mamba<>>>;

// state-spaces/mamba-…, state-spaces/mamba-…-hf
using Mamba130m = MambaOf<24, 768>;
using Mamba370m = MambaOf<48, 1024>;
using Mamba790m = MambaOf<48, 1536>;
using Mamba1400m = MambaOf<48, 2048>;
using Mamba2800m = MambaOf<64, 2560>;

/// tiiuae/falcon-mamba-7b
using FalconMamba7b = LanguageModel<Vocabulary<65024>, Width<4096>, Head,
                                    Repeat<64, Mamba<InnerNorm<RmsNorm<NoGain, Epsilon<1, 1'000'000>>>>>>;

/// With the activation of the public code; SwiGlu is what the paper says.
template <int Pairs, int W, int H, class Activation = GeGlu>
using BlackMambaOf =
    LanguageModel<Vocabulary<50304>, Width<W>, FinalNorm<LayerNorm<>>,
                  Repeat<Pairs, Mamba<>, Moe<Experts<8>, Hidden<H>, Activation, SigmoidThenTopK, RouterBias>>>;

// Zyphra/BlackMamba-…
using BlackMamba1500m = BlackMambaOf<15, 1152, 3072>;
using BlackMamba2800m = BlackMambaOf<18, 1472, 3872>;

// Key/value caches are as long as the published contexts, which takes 8 GB per sequence for Mixtral and for Jamba, in
// float. A shorter context N loads the same files and gives the same results for sequences of at most N tokens.

template <int N>
using Mixtral8x7bOf =
    LanguageModel<Vocabulary<32000>, Width<4096>, Head,
                  Repeat<32, Attention<Heads<32>, KeyValueHeads<8>, Context<N>, Rotary<1'000'000>>,
                         Moe<Experts<8>, TopK<2>, Hidden<14336>, SwiGlu, TopKThenSoftmax, BalanceLoss<1, 50>>>>;

/// mistralai/Mixtral-8x7B-v0.1
using Mixtral8x7b = Mixtral8x7bOf<32768>;

using JambaNorm = RmsNorm<Epsilon<1, 1'000'000>>;
using JambaMamba = Mamba<InnerNorm<JambaNorm>>;
using JambaMlp = Mlp<Hidden<14336>, SwiGlu>;
using JambaMoe = Moe<Experts<16>, TopK<2>, Hidden<14336>, SwiGlu, BalanceLoss<1, 1000>>;

/// Alternating mixers and feed-forward layers: the fifth of every eight mixers is attention, every second feed-forward
/// layer a mixture.
template <int N>
using JambaOf = LanguageModel<Vocabulary<65536>, Width<4096>, Head, PreNorm<JambaNorm>, FinalNorm<JambaNorm>,
                              Repeat<4, Repeat<2, JambaMamba, JambaMlp, JambaMamba, JambaMoe>,
                                     Attention<Heads<32>, KeyValueHeads<8>, Context<N>, NoPositions>, JambaMlp,
                                     JambaMamba, JambaMoe, JambaMamba, JambaMlp, JambaMamba, JambaMoe>>;

/// ai21labs/Jamba-v0.1
using Jamba = JambaOf<262144>;

/// mistralai/Mistral-7B-v0.1
using Mistral7b =
    LanguageModel<Vocabulary<32000>, Width<4096>, Head,
                  Repeat<32, Attention<Heads<32>, KeyValueHeads<8>, Context<4096>>, Mlp<Hidden<14336>, SwiGlu>>>;

/// meta-llama/Llama-2-7b-hf
using Llama2Of7b = LanguageModel<Vocabulary<32000>, Width<4096>, Head,
                                 Repeat<32, Attention<Heads<32>, Context<4096>>, Mlp<Hidden<11008>, SwiGlu>>>;

/// Qwen/Qwen2-0.5B
using Qwen2Of500m =
    LanguageModel<Vocabulary<151936>, Width<896>, PreNorm<RmsNorm<Epsilon<1, 1'000'000>>>,
                  FinalNorm<RmsNorm<Epsilon<1, 1'000'000>>>,
                  Repeat<24, Attention<Heads<14>, KeyValueHeads<2>, Context<131072>, Rotary<1'000'000>, InputBiases>,
                         Mlp<Hidden<4864>, SwiGlu>>>;

}  // namespace moe_mamba::inline v0_2::published
