// expect: an item of a model's body must be a layer
// expect: StageOf<moe_mamba::Width<64>, 64,
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Repeat<2, Width<64>, Mamba<>>>;

constexpr auto parameters = cost<Net>.parameters;
