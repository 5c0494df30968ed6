// expect: Parallel<A, B> takes two layers
// expect: Parallel<moe_mamba::Mamba<>, moe_mamba::TopK<2> ?>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Parallel<Mamba<>, TopK<2>>>;

constexpr auto parameters = cost<Net>.parameters;
