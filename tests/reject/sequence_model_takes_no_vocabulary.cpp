// expect: SequenceModel
// expect: moe_mamba::Vocabulary<256>
#include "definition.hpp"

using namespace moe_mamba;

using Net = SequenceModel<Inputs<4>, Outputs<2>, Width<32>, Vocabulary<256>, Mamba<>>;

constexpr auto parameters = cost<Net>.parameters;
