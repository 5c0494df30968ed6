// expect: TopK<K> is an option of Moe and Mamba; to sample from the K most probable tokens, use TopKSampling\{K\}
#include "moe_mamba/moe_mamba.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<8>, Mamba<>>;

void write(const Model<Net>& model) {
  Decoder decoder(model);
  for (const Token token : decoder.generate("prompt", TopK{3}, Seed{1}, 5)) (void)token;
}
