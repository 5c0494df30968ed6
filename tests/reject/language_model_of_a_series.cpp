// expect: LanguageModel takes Vocabulary<V>, not Inputs<I> or Outputs<O>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Inputs<4>, Outputs<2>, Width<64>, Mamba<>>;

constexpr auto parameters = cost<Net>.parameters;
