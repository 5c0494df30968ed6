// expect: an option's value is out of range
// expect: OptionInRange<.*Attention<.*, moe_mamba::Rotary<0>, 2, 1073741824>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Attention<Heads<8>, Context<8>, Rotary<0>>>;

constexpr auto parameters = cost<Net>.parameters;
