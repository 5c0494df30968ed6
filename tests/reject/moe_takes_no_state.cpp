// expect: Moe takes only the options Experts<N>, TopK<K>, .*: MoeTakes
// expect: MoeTakes<.*Moe<.*, moe_mamba::State<16> ?>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Moe<Experts<4>, State<16>>>;

constexpr auto parameters = cost<Net>.parameters;
