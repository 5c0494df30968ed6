// expect: Sequence<items...> needs at least one item
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Sequence<>>;

constexpr auto parameters = cost<Net>.parameters;
