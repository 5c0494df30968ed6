#pragma once

#include "moe_mamba/language/language_model.hpp"
#include "moe_mamba/language/mamba.hpp"

/// The models that the example knows. One more is one line here, another in kernels.cu and another in generate.cpp;
/// `describe CHECKPOINT_FOLDER` writes it.
namespace generate {

using namespace moe_mamba;

using Mamba130M = LanguageModel<Vocabulary<50280>, Width<768>, Repeat<24, Mamba<>>>;
using Mamba370M = LanguageModel<Vocabulary<50280>, Width<1024>, Repeat<48, Mamba<>>>;
using Mamba790M = LanguageModel<Vocabulary<50280>, Width<1536>, Repeat<48, Mamba<>>>;
using Mamba1400M = LanguageModel<Vocabulary<50280>, Width<2048>, Repeat<48, Mamba<>>>;
using Mamba2800M = LanguageModel<Vocabulary<50280>, Width<2560>, Repeat<64, Mamba<>>>;

/// A model of some hundred parameters, to see the program run.
using Tiny = LanguageModel<Vocabulary<256>, Width<8>, Repeat<2, Mamba<State<4>>>>;

}  // namespace generate
