// expect: RmsNorm also NoGain
// expect: NormTakes<.*LayerNorm<.*, moe_mamba::NoGain, false>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, FinalNorm<LayerNorm<NoGain>>, Mamba<>>;

constexpr auto parameters = cost<Net>.parameters;
