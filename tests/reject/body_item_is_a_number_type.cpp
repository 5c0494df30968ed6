// expect: an item of a model's body must be a layer
// expect: StageOf<int, 64,
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Mamba<>, int>;

constexpr auto parameters = cost<Net>.parameters;
