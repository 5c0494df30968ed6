// Published models: their numbers of parameters, and configs as they are published described as definitions.
#include "moe_mamba/families/published.hpp"

#include "moe_mamba/families/checkpoint_folder.hpp"
#include "moe_mamba/families/definition_words.hpp"
#include "moe_mamba/model/cost.hpp"
#include "support/catch.hpp"
#include "support/folder.hpp"

using namespace moe_mamba;
using namespace moe_mamba::published;

// As the -hf files have them and transformers counts them.
static_assert(cost<Mamba130m>.parameters == 129'135'360);
static_assert(cost<Mamba370m>.parameters == 371'516'416);
static_assert(cost<Mamba790m>.parameters == 793'204'224);
static_assert(cost<Mamba1400m>.parameters == 1'372'178'432);
static_assert(cost<Mamba2800m>.parameters == 2'768'345'600);
static_assert(cost<FalconMamba7b>.parameters == 7'272'665'088);

// Published rounded only: 340M of 1.5B and 630M of 2.8B (the embedding counted once, the tied head not again).
static_assert(cost<BlackMamba1500m>.parameters == 1'458'462'072);
static_assert(cost<BlackMamba1500m>.active_parameters == 343'694'712);
static_assert(cost<BlackMamba2800m>.parameters == 2'783'213'584);
static_assert(cost<BlackMamba2800m>.active_parameters == 628'770'832);

namespace {

/// What a config.json describes.
families::Architecture described(const std::string& text) {
  const test::Folder folder;
  test::write_bytes(folder / "config.json", text);
  return families::CheckpointFolder(folder.path()).architecture();
}

template <class Definition>
families::Architecture words_of() {
  return families::architecture_of(families::Of<Definition>{});
}

}  // namespace

TEST_CASE("Configs of published models describe their definitions", "[families]") {
  const auto check = [](const families::Architecture& config, const families::Architecture& definition,
                        const std::string& spelling) {
    CHECK_FALSE(families::difference(config, definition).has_value());
    CHECK_FALSE(families::difference(definition, config).has_value());
    CHECK(config.spelling() == spelling);
    CHECK(definition.spelling() == spelling);
  };
  check(described(R"({"model_type": "mamba", "vocab_size": 50280, "hidden_size": 768, "num_hidden_layers": 24,
          "state_size": 16, "conv_kernel": 4, "expand": 2, "intermediate_size": 1536, "time_step_rank": 48,
          "use_bias": false, "use_conv_bias": true, "layer_norm_epsilon": 1e-05, "hidden_act": "silu"})"),
        words_of<Mamba130m>(), "LanguageModel<Vocabulary<50280>, Width<768>, Repeat<24, Mamba<>>>");
  check(described(R"({"d_model": 2560, "n_layer": 64, "vocab_size": 50277, "ssm_cfg": {}, "rms_norm": true,
          "residual_in_fp32": true, "fused_add_norm": true, "pad_vocab_size_multiple": 8})"),
        words_of<Mamba2800m>(), "LanguageModel<Vocabulary<50280>, Width<2560>, Repeat<64, Mamba<>>>");
  check(described(R"({"model_type": "falcon_mamba", "vocab_size": 65024, "hidden_size": 4096, "num_hidden_layers": 64,
          "state_size": 16, "conv_kernel": 4, "expand": 16, "intermediate_size": 8192, "time_step_rank": 256,
          "use_bias": false, "use_conv_bias": true, "layer_norm_epsilon": 1e-05, "mixer_rms_eps": 1e-06,
          "tie_word_embeddings": false})"),
        words_of<FalconMamba7b>(),
        "LanguageModel<Vocabulary<65024>, Width<4096>, Head, Repeat<64, Mamba<InnerNorm<RmsNorm<NoGain, "
        "Epsilon<1, 1000000>>>>>>");
  std::string layers;
  for (int i = 0; i < 15; ++i) layers += std::string(i == 0 ? "" : ", ") + R"("r", "8")";
  const auto black = described(R"({"num_layers": 30, "hidden_size": 1152, "state_size": 16, "conv_dimension": 4,
          "vocab_size": 50304, "expansion_factor": 2, "ffn_hidden_size": 3072, "add_bias_linear": false, "swiglu": true,
          "max_sequence_length": 2048, "mamba_moe_layers": [)" +
                               layers + "]}");
  check(black, words_of<BlackMamba1500m>(),
        "LanguageModel<Vocabulary<50304>, Width<1152>, FinalNorm<LayerNorm<>>, Repeat<15, Mamba<>, Moe<Experts<8>, "
        "Hidden<3072>, GeGlu, SigmoidThenTopK, RouterBias>>>");
  // What the paper says does as well, another activation does not.
  CHECK_FALSE(families::difference(black, words_of<BlackMambaOf<15, 1152, 3072, SwiGlu>>()).has_value());
  CHECK(families::difference(black, words_of<BlackMambaOf<15, 1152, 3072, Gelu>>())->field == "layer 1: swiglu");
}

TEST_CASE("A definition's words are those it is spelled in again", "[families]") {
  using Mixed = LanguageModel<Vocabulary<9>, Width<6>, Head, PreNorm<LayerNorm<>>, Mamba<State<3>, Expand<1>>,
                              Residual<RmsNorm<Epsilon<2, 4000>>, Mlp<Hidden<5>, SwiGlu>>, Repeat<2, Mlp<>>,
                              Moe<Experts<4>, TopK<2>, TopKThenSoftmax, SharedExperts<1>, Capacity<5, 4>>>;
  CHECK(words_of<Mixed>().spelling() ==
        "LanguageModel<Vocabulary<9>, Width<6>, Head, PreNorm<LayerNorm<>>, Mamba<State<3>, Expand<1>>, "
        "Residual<RmsNorm<Epsilon<1, 2000>>, Mlp<Hidden<5>, SwiGlu>>, Repeat<2, Mlp<>>, Moe<Experts<4>, TopK<2>, "
        "SharedExperts<1>, TopKThenSoftmax, Capacity<5, 4>>>");
}
