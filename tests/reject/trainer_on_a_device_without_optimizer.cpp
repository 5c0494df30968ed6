// expect: a Trainer takes the optimizer before the schedule: Trainer trainer\(model, AdamW\{\}, Cosine\{...\}\)
// expect: OptimizerBefore<.*Cosine
#include "moe_mamba/moe_mamba.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<8>, Mamba<>>;

void train(Model<Net>& model, Cpu& device) { Trainer trainer(model, device, Cosine{.steps = 10}, TrainerOptions{}); }
