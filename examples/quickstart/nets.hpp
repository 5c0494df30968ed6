#pragma once

#include "moe_mamba/language/language_model.hpp"
#include "moe_mamba/language/mamba.hpp"
#include "moe_mamba/language/moe.hpp"
#include "moe_mamba/model/cost.hpp"

/// The models of the quickstart.
namespace quickstart {

using namespace moe_mamba;

// clang-format off
/// Byte-level: three blocks of a Mamba layer and a mixture of eight experts.
using Net = LanguageModel<Vocabulary<256>, Width<128>,
              Repeat<3, Mamba<State<16>>,
                        Moe<Experts<8>, TopK<1>, Hidden<448>>>>;

/// The model of --compare: Mamba layers only. A layer has as many parameters as a router and an expert.
using Plain = LanguageModel<Vocabulary<256>, Width<128>,
                Repeat<6, Mamba<State<16>>>>;
// clang-format on

static_assert(cost<Net>.parameters < 8'000'000);
static_assert(cost<Plain>.active_parameters > 0.95 * cost<Net>.active_parameters);
static_assert(cost<Plain>.active_parameters < 1.05 * cost<Net>.active_parameters);

}  // namespace quickstart
