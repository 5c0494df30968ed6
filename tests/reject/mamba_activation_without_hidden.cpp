// expect: Mamba: an activation is for experts with two matrices; give their hidden width
// expect: ActivationOfExperts<.*Mamba<.*, moe_mamba::Gelu ?>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Mamba<OutputExperts<4>, Gelu>>;

constexpr auto parameters = cost<Net>.parameters;
