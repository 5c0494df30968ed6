// expect: a Decoder needs a LanguageModel
#include "moe_mamba/moe_mamba.hpp"

using namespace moe_mamba;

using Series = SequenceModel<Inputs<1>, Outputs<1>, Width<8>, Mamba<>>;

void decode(const Model<Series>& model) { Decoder decoder(model); }
