// expect: an option is given more than once
// expect: OptionGivenOnce<.*Moe<.*, moe_mamba::BalanceLoss<1, 100?>, 2>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Moe<Experts<4>, BalanceLoss<1, 100>, BalanceLoss<1, 10>>>;

constexpr auto parameters = cost<Net>.parameters;
