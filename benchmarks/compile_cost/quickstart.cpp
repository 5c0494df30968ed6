// A typical first program: define a model, train it, generate from it. REPEATS is set on the command line.
#include <iostream>
#include <string>

#include "moe_mamba/generate/decoder.hpp"
#include "moe_mamba/moe_mamba.hpp"
#include "moe_mamba/train/trainer.hpp"
#include "moe_mamba/train/windows.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<128>,
                          Repeat<REPEATS, Mamba<State<16>>, Moe<Experts<8>, TopK<1>, Hidden<256>>>>;

int main(int count, char** arguments) {
  const std::string text(1 << 16, count > 1 ? arguments[1][0] : 'a');
  Model<Net> model(Seed{1});
  Cpu cpu(Threads{2});
  Trainer trainer(model, cpu, AdamW{.learning_rate = 1e-3}, Cosine{.warmup = 10, .steps = 100});
  for (const auto& batch : windows(text, Length{128}, Batch{8})) {
    std::cout << trainer.step(batch).loss << '\n';
    if (trainer.steps() == 100) break;
  }
  Decoder decoder(model);
  for (const Token token : decoder.generate("The ", TopP{0.9f}, Seed{7}, 200)) std::cout << static_cast<char>(token);
}
