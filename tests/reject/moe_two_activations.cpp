// expect: more than one activation is given
// expect: OneActivation<.*Moe<.*SwiGlu.*>, 2>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Moe<Experts<4>, Relu, SwiGlu>>;

constexpr auto parameters = cost<Net>.parameters;
