// expect: Attention takes only the options Heads<H>, KeyValueHeads<G>, HeadWidth<d>, Context<N>
// expect: AttentionTakes<.*Attention<.*, moe_mamba::State<16> ?>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Attention<Heads<8>, Context<8>, State<16>>>;

constexpr auto parameters = cost<Net>.parameters;
