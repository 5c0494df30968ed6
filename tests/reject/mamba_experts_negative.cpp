// expect: an option.s value is out of range: OptionInRange<layer, option, lowest allowed, highest allowed>
// expect: OptionInRange<.*Mamba<.*, moe_mamba::InputExperts<-3>, 1, 65536>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Mamba<InputExperts<-3>>>;

constexpr auto parameters = cost<Net>.parameters;
