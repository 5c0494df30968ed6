// expect: Moe needs the option Experts<N>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Moe<TopK<2>>>;

constexpr auto parameters = cost<Net>.parameters;
