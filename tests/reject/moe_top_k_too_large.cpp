// expect: an option.s value is out of range
// expect: OptionInRange<.*Moe<.*, moe_mamba::TopK<65537>, 1, 65536>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Moe<Experts<8>, TopK<65537>>>;

constexpr auto parameters = cost<Net>.parameters;
