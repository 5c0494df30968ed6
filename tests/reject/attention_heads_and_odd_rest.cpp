// expect: Attention: without HeadWidth<d> the width of a head is the model's Width / Heads, so Heads must divide Width
// expect: AttentionHeadWidth<.*Attention<.*, moe_mamba::Width<16>, moe_mamba::Heads<3> ?>
#include "definition.hpp"

using namespace moe_mamba;

// 16 over 3 is odd too, which is no second mistake.
using Net = LanguageModel<Vocabulary<256>, Width<16>, Attention<Heads<3>, Context<8>>>;

constexpr auto parameters = cost<Net>.parameters;
