// expect: a model must have fewer than 2\^60 parameters, and this definition has as many or more
#include "definition.hpp"

using namespace moe_mamba;

using Net = SequenceModel<Inputs<1>, Outputs<1>, Width<1048576>, Repeat<1000000, Repeat<1000000, Mlp<>>>>;

constexpr Cost of_net = cost<Net>;
