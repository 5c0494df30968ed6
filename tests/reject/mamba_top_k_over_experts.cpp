// expect: TopK must be from 1 to the number of experts
// expect: TopKOfExperts<.*Mamba<.*, moe_mamba::TopK<4>, moe_mamba::Experts<2> ?>
#include "definition.hpp"

using namespace moe_mamba;

using Net =
    LanguageModel<Vocabulary<256>, Width<64>, Mamba<InputExperts<8>, OutputExperts<2>, SeparateRouters, TopK<4>>>;

constexpr auto parameters = cost<Net>.parameters;
