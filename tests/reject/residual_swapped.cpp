// expect: Residual<Norm, Layer> takes a norm first
// expect: Residual<moe_mamba::Mamba<>, moe_mamba::RmsNorm<> ?>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Residual<Mamba<>, RmsNorm<>>>;

constexpr auto parameters = cost<Net>.parameters;
