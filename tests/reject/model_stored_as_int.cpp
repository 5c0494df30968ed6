// expect: a Model's parameters are float, double or moe_mamba::bfloat16
// expect: Model<.*LanguageModel<.*, int
#include "moe_mamba/inference.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<8>, Mamba<>>;

void read(Model<Net, int>& model, Cpu& device, std::span<const Token> tokens, std::span<float> logits) {
  Workspace<Net> workspace(device, {1, 8});
  model.forward(workspace, tokens, {1, 8}, logits);
}

int main() { Model<Net, int> model(Seed{1}); }
