// expect: an option is given more than once
// expect: OptionGivenOnce<.*Moe<.*, moe_mamba::SelectionBias, 2>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Moe<Experts<4>, SelectionBias, SelectionBias>>;

constexpr auto parameters = cost<Net>.parameters;
