// expect: Mamba: this option is about experts, but no projection has any; give InputExperts<N>, GateExperts<N> or OutputExperts<N>
// expect: OptionOfExperts<.*Mamba<.*, moe_mamba::Relu ?>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Mamba<Relu>>;

constexpr auto parameters = cost<Net>.parameters;
