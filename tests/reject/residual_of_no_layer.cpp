// expect: Residual<Norm, Layer> takes a layer second
// expect: Residual<moe_mamba::RmsNorm<>, moe_mamba::State<16> ?>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Residual<RmsNorm<>, State<16>>>;

constexpr auto parameters = cost<Net>.parameters;
