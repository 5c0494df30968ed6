// expect: RmsNorm and LayerNorm take only the option Epsilon<numerator, denominator>, RmsNorm also NoGain
// expect: NormTakes<.*RmsNorm<.*, moe_mamba::Width<64> ?, true>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, RmsNorm<Width<64>>, Mamba<>>;

constexpr auto parameters = cost<Net>.parameters;
