// expect: an option's value is out of range: OptionInRange<layer, option, lowest allowed, highest allowed>
// expect: OptionInRange<.*Moe<.*, moe_mamba::SharedExperts<-1>, 0, 1024>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Moe<Experts<4>, SharedExperts<-1>>>;

constexpr auto parameters = cost<Net>.parameters;
