// A user's program that instantiates nearly every template of the library, for the tests named warnings.
#include "moe_mamba/families/any_model.hpp"
#include "moe_mamba/families/families.hpp"
#include "moe_mamba/moe_mamba.hpp"
#if __has_include(<utf8proc.h>)
#include "moe_mamba/tokenizers.hpp"
#endif

namespace user {

using namespace moe_mamba;

using Norm = RmsNorm<Epsilon<1, 1'000'000>>;
using LocalAttention = Attention<Heads<4>, KeyValueHeads<2>, HeadWidth<6>, Context<40>, Rotary<100>, Biases>;
using Tokens =
    LanguageModel<Vocabulary<256>, Width<12>, TiedHead, AverageAuxiliaryLosses, PreNorm<Norm>, FinalNorm<LayerNorm<>>,
                  Repeat<2, Mamba<State<3>, Convolution<3>, InnerNorm<RmsNorm<NoGain>>, ProjectionBias>,
                         Moe<Experts<5>, TopK<2>, Hidden<7>, SwiGlu, TopKThenSoftmax, ZLoss<1, 1000>>>,
                  LocalAttention, Parallel<Attention<Heads<2>, Context<8>, NoPositions>, Mlp<Hidden<7>, Gelu>>,
                  Residual<Norm, Mamba<State<16>>>,
                  Moe<Experts<4>, Hidden<8>, SquaredRelu, SigmoidThenTopK, RouterBias>,
                  Moe<Experts<4>, TopK<2>, SigmoidThenTopK, NormalisedGates, GateScale<5, 2>, SelectionBias>,
                  Moe<Experts<4>, Hidden<8>, Relu, Capacity<125, 100>, SharedExperts<1>>>;
using Numbers = SequenceModel<Inputs<2>, Outputs<3>, Width<8>, Repeat<2, Mamba<>, Mlp<Hidden<16>, GeGlu>>>;
using Public = LanguageModel<Vocabulary<16>, Width<12>, Repeat<2, Mamba<State<3>>>>;
using Mixture = LanguageModel<Vocabulary<16>, Width<12>, Head,
                              Repeat<2, Attention<Heads<2>, Context<40>, Rotary<100>>,
                                     Moe<Experts<5>, TopK<2>, Hidden<7>, SwiGlu, TopKThenSoftmax, BalanceLoss<0>>>>;

/// Training, files and generation of a model that reads tokens.
template <StorageScalar S>
void tokens(const std::filesystem::path& path) {
  Model<Tokens, S> model(Seed{1});
  const std::vector<unsigned char> text = read_text(path);
  auto batches = windows(text, Length{16}, Batch{4}, Seed{2});
  Cpu cpu(Threads{2});
  Trainer trainer(model, cpu, AdamW{.learning_rate = 1e-3}, Cosine{.warmup = 2, .steps = 10},
                  {.largest = {4, 16}, .clip_norm = 1.0});
  trainer.step(batches.next());
  trainer.accumulate(batches.next());
  trainer.update();
  trainer.evaluate(sequential_windows(text, Length{16}, Batch{4}).next());
  trainer.visit_routers([](const RouterReport&) {});
  save_checkpoint(path, trainer, batches.state());
  batches.restore(load_checkpoint(path, trainer).windows);
  save(model, path);
  load(model, path);

  const std::vector<Token> prompt = ByteTokenizer{}.encode("text");
  Decoder decoder(model, cpu, DecoderOptions{.chunk = 64});
  for (const Token token : decoder.generate(prompt, TopP{0.9f, 0.8f}, Seed{3}, 10)) decoder.prefill({&token, 1});
  Scorer(model).text(prompt);
}

template <StorageScalar S>
void numbers() {
  Model<Numbers, S> model(Seed{1});
  Trainer trainer(model, AdamW{}, Cosine{.warmup = 2, .steps = 10});
  const std::vector<compute_t<S>> inputs(32), targets(48);
  trainer.step(SeriesBatch<compute_t<S>>{inputs, targets, {2, 8}});
}

void files(const std::filesystem::path& path) {
  Model<Public> model(Seed{1});
  load(model, Pretrained{path});
  save(model, Pretrained{path});
  const AnyModel<bfloat16, Cpu, Public, Mixture> any(Pretrained{path});
  any.decoder();
#if __has_include(<utf8proc.h>)
  const BpeTokenizer tokenizer = load_tokenizer(path);
  StreamDecoder<BpeTokenizer> stream(tokenizer);
  for (const Token token : tokenizer.encode("text")) stream.push(token);
#endif
}

}  // namespace user

int main(int, char** arguments) {
  user::tokens<float>(arguments[0]);
  user::tokens<double>(arguments[0]);
  user::tokens<moe_mamba::bfloat16>(arguments[0]);
  user::numbers<float>();
  user::numbers<double>();
  user::files(arguments[0]);
}
