// expect: Moe needs the option Experts<N> with N of 1 or more
// expect: MoeNeedsExperts<.*Moe<moe_mamba::TopK<1> ?>, 0>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Moe<TopK<1>>>;

constexpr auto parameters = cost<Net>.parameters;
