// expect: Attention: NoPositions may be given at most once, and not with Rotary
// expect: OneKindOfPositions<.*Attention<.*, 2>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Attention<Heads<8>, Context<8>, Rotary<10000>, NoPositions>>;

constexpr auto parameters = cost<Net>.parameters;
