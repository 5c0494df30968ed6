// expect: an option's value is out of range
// expect: OptionInRange<.*Attention<.*, moe_mamba::HeadWidth<257>, 1, 256>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Attention<Heads<8>, Context<8>, HeadWidth<257>>>;

constexpr auto parameters = cost<Net>.parameters;
