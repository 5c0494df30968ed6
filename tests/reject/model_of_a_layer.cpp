// expect: LanguageModel.* SequenceModel
// expect: Moe<moe_mamba::Experts<4> ?>
#include "definition.hpp"

using namespace moe_mamba;

constexpr auto parameters = cost<Moe<Experts<4>>>.parameters;
