// expect: an option is given more than once
// expect: OptionGivenOnce<.*Mamba<.*, moe_mamba::State<8>, 3>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Mamba<State<8>, State<9>, State<8>>>;

constexpr auto parameters = cost<Net>.parameters;
