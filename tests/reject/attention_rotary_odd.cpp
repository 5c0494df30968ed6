// expect: Attention: rotary positions rotate pairs
// expect: AttentionRotary<.*Attention<.*, moe_mamba::RotaryWidth<5>, moe_mamba::HeadWidth<5> ?>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Attention<Heads<8>, Context<8>, HeadWidth<5>>>;

constexpr auto parameters = cost<Net>.parameters;
