// expect: Attention: KeyValueHeads must divide Heads
// expect: AttentionGroups<.*Attention<.*, moe_mamba::Heads<8>, moe_mamba::KeyValueHeads<3> ?>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Attention<Heads<8>, KeyValueHeads<3>, Context<8>>>;

constexpr auto parameters = cost<Net>.parameters;
