// expect: an option.s value is out of range
// expect: OptionInRange<.*Attention<.*, moe_mamba::RotaryWidth<1>, 2, 256>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Attention<Heads<8>, RotaryWidth<1>, Context<8>>>;

constexpr auto parameters = cost<Net>.parameters;
