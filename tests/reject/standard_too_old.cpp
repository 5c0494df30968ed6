// expect: the headers are C\+\+20, and the compiler is set to an older standard; allowed: -std=c\+\+20 or later
// errors: 2
// flags: -std=c++17
#include "moe_mamba/moe_mamba.hpp"

using Net = moe_mamba::LanguageModel<moe_mamba::Vocabulary<256>, moe_mamba::Width<64>, moe_mamba::Mamba<>>;
