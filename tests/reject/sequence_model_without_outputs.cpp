// expect: a model lacks an option that it needs
// expect: ModelNeeds<.*SequenceModel<.*, moe_mamba::Outputs<[0-9]+>, 0>
#include "definition.hpp"

using namespace moe_mamba;

using Net = SequenceModel<Inputs<4>, Width<32>, Mamba<>>;

constexpr auto parameters = cost<Net>.parameters;
