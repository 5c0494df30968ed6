// expect: an option.s value is out of range
// expect: OptionInRange<.*Mamba<.*, moe_mamba::Inner<0>, 1, 16777216>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Mamba<Inner<0>>>;

constexpr auto parameters = cost<Net>.parameters;
