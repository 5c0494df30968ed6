// expect: PreNorm and FinalNorm take a norm
// expect: ModelNorm<.*LanguageModel<.*, moe_mamba::Mamba<> ?>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, PreNorm<Mamba<>>, Mamba<>>;

constexpr auto parameters = cost<Net>.parameters;
