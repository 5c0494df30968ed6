// expect: NormalisedGates divides the gates of SigmoidThenTopK by their sum, and needs that option; probabilities divided by their sum are TopKThenSoftmax
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Moe<Experts<4>, TopK<2>, NormalisedGates>>;

constexpr auto parameters = cost<Net>.parameters;
