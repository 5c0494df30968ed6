// expect: Mamba: this option is about experts, but no projection has any
// expect: OptionOfExperts<.*Mamba<.*, moe_mamba::SeparateRouters ?>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Mamba<SeparateRouters>>;

constexpr auto parameters = cost<Net>.parameters;
