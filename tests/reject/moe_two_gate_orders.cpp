// expect: SoftmaxThenTopK, TopKThenSoftmax and SigmoidThenTopK exclude each other
// expect: OneGateOrder<.*Moe<.*>, 2>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Moe<Experts<4>, TopK<2>, SoftmaxThenTopK, TopKThenSoftmax>>;

constexpr auto parameters = cost<Net>.parameters;
