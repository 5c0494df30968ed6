// expect: more than one activation is given
// expect: OneActivation<.*Mamba<.*, 2>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Mamba<OutputExperts<4>, Hidden<8>, Gelu, Relu>>;

constexpr auto parameters = cost<Net>.parameters;
