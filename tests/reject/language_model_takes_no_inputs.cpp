// expect: LanguageModel
// expect: moe_mamba::Inputs<4>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Inputs<4>, Mamba<>>;

constexpr auto parameters = cost<Net>.parameters;
