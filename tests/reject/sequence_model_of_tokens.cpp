// expect: SequenceModel takes Inputs<I> and Outputs<O>, not Vocabulary<V>
#include "definition.hpp"

using namespace moe_mamba;

using Net = SequenceModel<Vocabulary<256>, Width<64>, Mamba<>>;

constexpr auto parameters = cost<Net>.parameters;
