// expect: Attention: rotary positions rotate pairs
// expect: AttentionRotary<.*Attention<.*, moe_mamba::RotaryWidth<10>, moe_mamba::HeadWidth<8> ?>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Attention<Heads<8>, Context<8>, RotaryWidth<10>>>;

constexpr auto parameters = cost<Net>.parameters;
