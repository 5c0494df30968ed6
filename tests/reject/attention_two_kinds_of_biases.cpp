// expect: Attention: InputBiases and Biases exclude each other
// expect: OneKindOfBiases<.*Attention<.*, 2>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Attention<Heads<8>, Context<8>, Biases, InputBiases>>;

constexpr auto parameters = cost<Net>.parameters;
