// expect: an option's value is out of range: OptionInRange<layer, option, lowest allowed, highest allowed>
// expect: OptionInRange<.*LanguageModel<.*, moe_mamba::Width<0>, 1, 1048576>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<0>, Mamba<>>;

constexpr auto parameters = cost<Net>.parameters;
