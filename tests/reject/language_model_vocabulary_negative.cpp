// expect: an option's value is out of range: OptionInRange<layer, option, lowest allowed, highest allowed>
// expect: OptionInRange<.*LanguageModel<.*, moe_mamba::Vocabulary<-1>, 1, [0-9]+>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<-1>, Width<64>, Mamba<>>;

constexpr auto parameters = cost<Net>.parameters;
