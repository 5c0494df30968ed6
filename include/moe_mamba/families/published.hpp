#pragma once

#include "moe_mamba/layers/mamba.hpp"
#include "moe_mamba/layers/moe.hpp"
#include "moe_mamba/layers/norm.hpp"
#include "moe_mamba/model/composition.hpp"
#include "moe_mamba/model/language_model.hpp"

/// Definitions of models that are published, ready to be opened:
///
///   auto model = load<published::Mamba130m, bfloat16>(Pretrained{"mamba-130m-hf"});
namespace moe_mamba::published {

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

}  // namespace moe_mamba::published
