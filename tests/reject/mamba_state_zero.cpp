// expect: an option's value is out of range: OptionInRange<layer, option, lowest allowed, highest allowed>
// expect: OptionInRange<moe_mamba::Mamba<moe_mamba::State<0> ?>, moe_mamba::State<0>, 1, 4096>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Repeat<2, Mamba<State<0>>>>;

constexpr auto parameters = cost<Net>.parameters;
