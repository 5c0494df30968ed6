// expect: RmsNorm and LayerNorm take only the option Epsilon
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, LayerNorm<NoGain, NoGain>, Mamba<>>;

constexpr auto parameters = cost<Net>.parameters;
