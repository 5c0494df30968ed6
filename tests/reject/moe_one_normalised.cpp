// expect: with TopK<1> a single gate divided by itself is always 1.*allowed: SigmoidThenTopK without NormalisedGates, or TopK of 2 or more
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Moe<Experts<4>, SigmoidThenTopK, NormalisedGates>>;

constexpr auto parameters = cost<Net>.parameters;
