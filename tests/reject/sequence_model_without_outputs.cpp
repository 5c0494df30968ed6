// expect: a required option of a model is missing
// expect: ModelNeeds<.*SequenceModel<.*, moe_mamba::Outputs<[0-9]+>, 0>
#include "definition.hpp"

using namespace moe_mamba;

using Net = SequenceModel<Inputs<4>, Width<32>, Mamba<>>;

constexpr auto parameters = cost<Net>.parameters;
