// expect: an option's value is out of range: OptionInRange<layer, option, lowest allowed, highest allowed>
// expect: OptionInRange<.*Mlp<.*, moe_mamba::Hidden<0>, 1, 16777216>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Mlp<Hidden<0>>>;

constexpr auto parameters = cost<Net>.parameters;
