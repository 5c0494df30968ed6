// Inference compiles with -fno-exceptions and -fno-rtti.
#include "moe_mamba/inference.hpp"
#include "moe_mamba/kernels.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<16>, Width<8>, Mamba<State<4>>, Moe<Experts<2>, Hidden<8>>>;
using Closure = SequenceModel<Inputs<2>, Outputs<1>, Width<8>, Mamba<State<4>>>;

void generate() {
  const Model<Net> model(Seed{1});
  Cpu cpu(Threads{2});
  Decoder decoder(model, cpu);
  for (const Token token : decoder.generate(std::span<const Token>(), TopP{0.9f}, Seed{1}, 3))
    decoder.prefill({&token, 1});
  const Token token = 1;
  Scorer(model, cpu).text({&token, 1});
}

void step(std::span<double> parameters, std::span<double> memory, std::span<const double> in, std::span<double> out) {
  const Model<Closure, double> model(parameters);
  States<Closure, double> cells(memory, 10);
  Cpu cpu;
  Workspace<Closure, double> workspace(cpu, {10, 1});
  model.step(workspace, cells, in, out);
}
