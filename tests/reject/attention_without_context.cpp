// expect: Attention needs the options Heads<H> and Context<N>
// expect: AttentionNeeds<.*Attention<.*, moe_mamba::Context<2048>, 0>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Attention<Heads<8>>>;

constexpr auto parameters = cost<Net>.parameters;
