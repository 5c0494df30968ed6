#pragma once

#include <moe_mamba/moe_mamba.hpp>

using Net =
    moe_mamba::LanguageModel<moe_mamba::Vocabulary<16>, moe_mamba::Width<8>, moe_mamba::Mamba<moe_mamba::State<4>>,
                             moe_mamba::Moe<moe_mamba::Experts<2>, moe_mamba::Hidden<8>>>;

/// The sum of the logits after one token.
double sum_of_logits(const moe_mamba::Model<Net>& model, moe_mamba::Token token);
