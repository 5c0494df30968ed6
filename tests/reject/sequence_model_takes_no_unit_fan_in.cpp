// expect: SequenceModel takes Inputs<I> and Outputs<O>, not Vocabulary<V>, TiedHead, Head or UnitFanIn
#include "definition.hpp"

using namespace moe_mamba;

using Net = SequenceModel<Inputs<4>, Outputs<2>, Width<64>, UnitFanIn, Mamba<>>;

constexpr auto parameters = cost<Net>.parameters;
