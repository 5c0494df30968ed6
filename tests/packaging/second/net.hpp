#pragma once

// Another header of the same name, whose kernels go into files of their own.
#include <moe_mamba/inference.hpp>
#include <moe_mamba/language/mlp.hpp>

namespace second {
using Net = moe_mamba::LanguageModel<moe_mamba::Vocabulary<16>, moe_mamba::Width<8>, moe_mamba::Mlp<>>;
}
