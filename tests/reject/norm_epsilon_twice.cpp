// expect: an option is given more than once
// expect: OptionGivenOnce<.*RmsNorm<.*, moe_mamba::Epsilon<1(, 1(000)?)?>, 2>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, FinalNorm<RmsNorm<Epsilon<1, 1000>, Epsilon<1>>>, Mamba<>>;

constexpr auto parameters = cost<Net>.parameters;
