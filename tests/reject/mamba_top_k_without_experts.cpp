// expect: Mamba: this option is about experts, but no projection has any
// expect: OptionOfExperts<.*Mamba<.*, moe_mamba::TopK<2> ?>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Mamba<State<16>, TopK<2>>>;

constexpr auto parameters = cost<Net>.parameters;
