// expect: generate\(prompt, sampling, seed, count\) takes tokens or bytes
// expect: GenerateTakes<.*, moe_mamba::Greedy, moe_mamba::Seed>
#include "moe_mamba/moe_mamba.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<8>, Mamba<>>;

void write(const Model<Net>& model) {
  Decoder decoder(model);
  for (const Token token : decoder.generate(std::vector<long>{1}, Greedy{}, Seed{1})) (void)token;
}
