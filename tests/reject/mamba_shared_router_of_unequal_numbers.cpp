// expect: Mamba: one router for all projections needs as many experts in each; allowed: equal numbers, or SeparateRouters
// expect: SharedRouterCounts<.*Mamba<.*, moe_mamba::InputExperts<8>, moe_mamba::GateExperts<0>, moe_mamba::OutputExperts<4> ?>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Mamba<InputExperts<8>, OutputExperts<4>>>;

constexpr auto parameters = cost<Net>.parameters;
