// expect: Repeat<Times, items...> needs at least one item
// expect: Repeat<2>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Repeat<2>>;

constexpr auto parameters = cost<Net>.parameters;
