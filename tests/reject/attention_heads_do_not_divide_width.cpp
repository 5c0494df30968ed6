// expect: Attention: without HeadWidth<d> the width of a head is the model's Width / Heads, so Heads must divide Width
// expect: AttentionHeadWidth<.*Attention<.*, moe_mamba::Width<64>, moe_mamba::Heads<6> ?>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Attention<Heads<6>, Context<8>>>;

constexpr auto parameters = cost<Net>.parameters;
