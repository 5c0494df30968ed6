// expect: mutually exclusive options are given, or one of them twice
// expect: OneOf<.*LanguageModel<.*, 2>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, TiedHead, Head, Mamba<>>;

constexpr auto parameters = cost<Net>.parameters;
