// expect: an option is given more than once
// expect: OptionGivenOnce<.*Moe<.*, moe_mamba::NormalisedGates, 2>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>,
                          Moe<Experts<4>, TopK<2>, SigmoidThenTopK, NormalisedGates, NormalisedGates>>;

constexpr auto parameters = cost<Net>.parameters;
