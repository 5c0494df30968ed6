// expect: Mamba: InnerNorm takes a norm
// expect: MambaInnerNorm<.*Mamba<.*, int ?>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Mamba<InnerNorm<int>>>;

constexpr auto parameters = cost<Net>.parameters;
