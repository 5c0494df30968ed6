// expect: Mamba: InnerNorm takes a norm
// expect: MambaInnerNorm<.*Mamba<.*, moe_mamba::Mlp<> ?>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Mamba<InnerNorm<Mlp<>>>>;

constexpr auto parameters = cost<Net>.parameters;
