// expect: Mamba: experts have no biases; leave out ProjectionBias or the experts
// expect: BiasOfExperts<.*Mamba<.*, moe_mamba::ProjectionBias ?>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Mamba<OutputExperts<4>, ProjectionBias>>;

constexpr auto parameters = cost<Net>.parameters;
