// expect: a Trainer takes a schedule after the optimizer, such as Constant or Cosine
#include "moe_mamba/moe_mamba.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<8>, Mamba<>>;

void train(Model<Net>& model) { Trainer trainer(model, AdamW{}, 3); }
