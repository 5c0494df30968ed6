// expect: an option's value is out of range: OptionInRange<layer, option, lowest allowed, highest allowed>
// expect: OptionInRange<.*Mamba<.*, moe_mamba::Expand<-2>, 1, 64>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Mamba<State<16>, Expand<-2>>>;

constexpr auto parameters = cost<Net>.parameters;
