// expect: an option's ratio is out of range; its denominator must be 1 or more
// expect: RatioInRange<.*RmsNorm<.*, moe_mamba::Epsilon<0(, 1)?>, 1>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, FinalNorm<RmsNorm<Epsilon<0>>>, Mamba<>>;

constexpr auto parameters = cost<Net>.parameters;
