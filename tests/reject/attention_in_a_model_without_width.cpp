// expect: a required option of a model is missing
// expect: ModelNeeds<.*LanguageModel<.*, moe_mamba::Width<[0-9]+>, 0>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Attention<Heads<8>, Context<8>>>;

constexpr auto parameters = cost<Net>.parameters;
