// expect: an option's value is out of range
// expect: OptionInRange<.*Attention<.*, moe_mamba::Context<-1>, 1, 16777216>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Attention<Heads<8>, Context<-1>>>;

constexpr auto parameters = cost<Net>.parameters;
