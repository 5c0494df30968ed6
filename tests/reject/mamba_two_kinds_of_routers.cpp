// expect: Mamba: SharedRouter and SeparateRouters exclude each other
// expect: OneKindOfRouter<.*Mamba<.*, 2>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Mamba<InputExperts<8>, SharedRouter, SeparateRouters>>;

constexpr auto parameters = cost<Net>.parameters;
