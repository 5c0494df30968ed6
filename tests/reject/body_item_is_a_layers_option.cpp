// expect: an item of a model's body must be a layer
// expect: StageOf<moe_mamba::State<16>, 64,
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, State<16>, Mamba<>>;

constexpr auto parameters = cost<Net>.parameters;
