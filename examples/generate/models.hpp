#pragma once

#include "moe_mamba/language/language_model.hpp"
#include "moe_mamba/language/mamba.hpp"

/// The models that the example supports. A new one needs a line here, one in kernels.cu and one in generate.cpp;
/// `describe CHECKPOINT_FOLDER` prints it.
namespace generate {

using namespace moe_mamba;

using Mamba130M = LanguageModel<Vocabulary<50280>, Width<768>, Repeat<24, Mamba<>>>;
using Mamba370M = LanguageModel<Vocabulary<50280>, Width<1024>, Repeat<48, Mamba<>>>;
using Mamba790M = LanguageModel<Vocabulary<50280>, Width<1536>, Repeat<48, Mamba<>>>;
using Mamba1400M = LanguageModel<Vocabulary<50280>, Width<2048>, Repeat<48, Mamba<>>>;
using Mamba2800M = LanguageModel<Vocabulary<50280>, Width<2560>, Repeat<64, Mamba<>>>;

/// A model of a few hundred parameters, to try the program.
using Tiny = LanguageModel<Vocabulary<256>, Width<8>, Repeat<2, Mamba<State<4>>>>;

}  // namespace generate
