// expect: an option's value is out of range: OptionInRange<layer, option, lowest allowed, highest allowed>
// expect: OptionInRange<.*Attention<.*, moe_mamba::Heads<0>, 1, 1024>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Attention<Heads<0>, Context<8>>>;

constexpr auto parameters = cost<Net>.parameters;
