#pragma once

#include <moe_mamba/language/language_model.hpp>
#include <moe_mamba/language/mamba.hpp>
#include <moe_mamba/language/moe.hpp>

using Net =
    moe_mamba::LanguageModel<moe_mamba::Vocabulary<16>, moe_mamba::Width<8>, moe_mamba::Mamba<moe_mamba::State<4>>,
                             moe_mamba::Moe<moe_mamba::Experts<2>, moe_mamba::Hidden<8>>>;
