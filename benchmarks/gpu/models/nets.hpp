#pragma once

#include "moe_mamba/language/language_model.hpp"
#include "moe_mamba/language/mamba.hpp"
#include "moe_mamba/language/moe.hpp"

/// The models that are measured on a device; their kernels are compiled file by file.
namespace benchmarks {

using namespace moe_mamba;

/// MoE-Mamba of 25 million active parameters (Pióro et al. 2024, table 1).
using MoeMamba25M =
    LanguageModel<Vocabulary<50257>, Width<512>, Repeat<8, Mamba<State<16>>, Moe<Experts<42>, TopK<1>, Hidden<1536>>>>;

/// The shape of state-spaces/mamba-2.8b.
using Mamba2800M = LanguageModel<Vocabulary<50280>, Width<2560>, Repeat<64, Mamba<State<16>>>>;

}  // namespace benchmarks
