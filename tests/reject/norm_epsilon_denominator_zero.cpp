// expect: an option's ratio is out of range; its denominator must be 1 or more
// expect: RatioInRange<.*LayerNorm<.*, moe_mamba::Epsilon<1, 0>, 1>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, LayerNorm<Epsilon<1, 0>>, Mamba<>>;

constexpr auto parameters = cost<Net>.parameters;
