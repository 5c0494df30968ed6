// expect: an option is given more than once
// expect: OptionGivenOnce<.*LanguageModel<.*, moe_mamba::UnitFanIn, 2>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, UnitFanIn, UnitFanIn, Mamba<>>;

constexpr auto parameters = cost<Net>.parameters;
