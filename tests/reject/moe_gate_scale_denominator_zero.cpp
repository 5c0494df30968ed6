// expect: an option's ratio is out of range; its denominator must be 1 or more
// expect: RatioInRange<.*Moe<.*, moe_mamba::GateScale<1, 0>, 1>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Moe<Experts<4>, GateScale<1, 0>>>;

constexpr auto parameters = cost<Net>.parameters;
