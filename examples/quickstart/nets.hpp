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

/// The models of --compare, small enough for the text to last: two blocks with 32 experts, and plain Mamba, whose layers have as
/// many parameters as a router and an expert.
using SmallNet = LanguageModel<Vocabulary<256>, Width<24>,
                   Repeat<2, Mamba<State<16>>,
                             Moe<Experts<32>, TopK<1>, Hidden<112>>>>;
using SmallPlain = LanguageModel<Vocabulary<256>, Width<24>,
                     Repeat<4, Mamba<State<16>>>>;
// clang-format on

static_assert(cost<Net>.parameters < 8'000'000);
static_assert(cost<SmallNet>.active_parameters <= cost<SmallPlain>.active_parameters);
static_assert(cost<SmallNet>.active_parameters > 0.95 * cost<SmallPlain>.active_parameters);

}  // namespace quickstart
