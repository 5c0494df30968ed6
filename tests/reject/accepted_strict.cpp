// flags: -Werror -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wsign-conversion -Wuseless-cast -Wno-unknown-warning-option
// A build that asks for more warnings than our own, and reaches the headers by an ordinary include folder, sees none of ours.
#include <filesystem>
#include <vector>

#include "moe_mamba/moe_mamba.hpp"
#if __has_include(<utf8proc.h>)
#include "moe_mamba/tokenizers.hpp"
#endif

using namespace moe_mamba;

using Net = LanguageModel<
    Vocabulary<64>, Width<8>, Mamba<State<3>, InnerNorm<RmsNorm<>>>,
    Repeat<2, Moe<Experts<16>, TopK<2>, Hidden<12>, BalanceLoss<1, 100>, ZLoss<1, 1000>, SharedExperts<1>>>,
    Attention<Heads<2>, Context<16>, Biases>, Mlp<Gelu>, Parallel<Mlp<SwiGlu>, Mamba<>>,
    Moe<Experts<4>, Capacity<5, 4>, SigmoidThenTopK, RouterBias>>;
using Series =
    SequenceModel<Inputs<3>, Outputs<2>, Width<8>, Mamba<>, PreNorm<LayerNorm<>>, FinalNorm<RmsNorm<NoGain>>>;

template <class S>
void use(const std::filesystem::path& file) {
  Model<Net, S> model(Seed{1});
  Trainer trainer(model);
  const std::vector<Token> tokens(12, 3);
  trainer.step(TokenBatch{tokens, tokens, {2, 6}});
  save(model, file);
  save_checkpoint(file, trainer);
  load_checkpoint(file, trainer);
  auto loaded = load<Net, S>(file);
  Decoder decoder(loaded);
  for (const Token token : decoder.generate(tokens, TopP{0.9f}, Seed{7})) (void)token;
  Model<Series, S> series(Seed{1});
  Trainer series_trainer(series);
}

template void use<float>(const std::filesystem::path&);
template void use<double>(const std::filesystem::path&);
template void use<bfloat16>(const std::filesystem::path&);
