// expect: Attention: without HeadWidth<d> the width of a head is the model's Width / Heads, which must be 256 or less
// expect: AttentionHeadWidth<.*Attention<.*, moe_mamba::Width<512>, moe_mamba::Heads<1> ?>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<512>, Attention<Heads<1>, Context<8>>>;

constexpr auto parameters = cost<Net>.parameters;
