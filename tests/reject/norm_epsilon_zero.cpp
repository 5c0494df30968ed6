// expect: Epsilon<numerator, denominator> must be positive
// expect: RmsNorm<moe_mamba::Epsilon<0, ?1> ?>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, FinalNorm<RmsNorm<Epsilon<0>>>, Mamba<>>;

constexpr auto parameters = cost<Net>.parameters;
