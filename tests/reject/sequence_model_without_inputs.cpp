// expect: a required option of a model is missing
// expect: ModelNeeds<.*SequenceModel<.*, moe_mamba::Inputs<[0-9]+>, 0>
#include "definition.hpp"

using namespace moe_mamba;

using Net = SequenceModel<Outputs<2>, Width<32>, Mamba<>>;

constexpr auto parameters = cost<Net>.parameters;
