// expect: a model needs a body of at least one layer
// expect: ModelBody<.*LanguageModel<.*, 0>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>>;

constexpr auto parameters = cost<Net>.parameters;
