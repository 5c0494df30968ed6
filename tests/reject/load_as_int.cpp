// expect: a Model's parameters are float, double or moe_mamba::bfloat16
// expect: Model<.*LanguageModel<.*, signed char
#include "moe_mamba/inference.hpp"
#include "moe_mamba/io/model_file.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<8>, Mamba<>>;

int main() {
  const auto model = load<Net, signed char>("model.safetensors");
  return model.parameters().empty() ? 1 : 0;
}
