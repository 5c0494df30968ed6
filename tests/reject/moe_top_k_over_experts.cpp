// expect: TopK must be from 1 to the number of experts
// expect: TopKOfExperts<.*Moe<.*, moe_mamba::TopK<8>, moe_mamba::Experts<4> ?>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Repeat<2, Mamba<>, Moe<Experts<4>, TopK<8>>>>;

constexpr auto parameters = cost<Net>.parameters;
