// expect: Mlp takes only the option Hidden<H> and an activation .*: MlpTakes
// expect: MlpTakes<.*Mlp<.*, moe_mamba::Experts<4> ?>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Mlp<Experts<4>>>;

constexpr auto parameters = cost<Net>.parameters;
