// expect: generate\(prompt, sampling, seed, count\) takes tokens or bytes
// expect: GenerateTakes<const char ?\(&\) ?\[7\], moe_mamba::TopK<3>, moe_mamba::Seed, int>
#include "moe_mamba/moe_mamba.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<8>, Mamba<>>;

void write(const Model<Net>& model) {
  Decoder decoder(model);
  for (const Token token : decoder.generate("prompt", TopK<3>{}, Seed{1}, 5)) (void)token;
}
