// expect: an option is given more than once
// expect: OptionGivenOnce<.*Mamba<.*, moe_mamba::State<16>, 2>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Mamba<State<16>, State<8>>>;

constexpr auto parameters = cost<Net>.parameters;
