// expect: an option is given more than once
// expect: OptionGivenOnce<.*Attention<.*, moe_mamba::Heads<8>, 2>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Attention<Heads<8>, Context<8>, Heads<4>>>;

constexpr auto parameters = cost<Net>.parameters;
