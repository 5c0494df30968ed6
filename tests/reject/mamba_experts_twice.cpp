// expect: an option is given more than once
// expect: OptionGivenOnce<.*Mamba<.*, moe_mamba::GateExperts<4>, 2>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Mamba<GateExperts<4>, GateExperts<4>>>;

constexpr auto parameters = cost<Net>.parameters;
