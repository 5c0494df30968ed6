// expect: use of deleted function|call to deleted member function
// expect: generate
#include "moe_mamba/moe_mamba.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<8>, Mamba<>>;

void write(const Model<Net>& model) {
  for (const Token token : Decoder(model).generate("prompt", Greedy{}, Seed{1}, 5)) (void)token;
}
