// expect: with TopK<1> a softmax over the single selected expert is always 1
// expect: TopOneNotRenormalised<.*Mamba<.*, moe_mamba::TopKThenSoftmax ?>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Mamba<OutputExperts<4>, TopKThenSoftmax>>;

constexpr auto parameters = cost<Net>.parameters;
