// expect: an option.s value is out of range
// expect: OptionInRange<.*Attention<.*, moe_mamba::KeyValueHeads<1025>, 1, 1024>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Attention<Heads<8>, KeyValueHeads<1025>, Context<8>>>;

constexpr auto parameters = cost<Net>.parameters;
