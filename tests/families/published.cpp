// Published models: their numbers of parameters, and their published configs as definitions.
#include "moe_mamba/families/published.hpp"

#include <string>
#include <string_view>

#include "moe_mamba/families/architecture_of.hpp"
#include "moe_mamba/families/checkpoint_folder.hpp"
#include "moe_mamba/model/cost.hpp"
#include "support/catch.hpp"
#include "support/folder.hpp"

using namespace moe_mamba;
using namespace moe_mamba::published;
using test::Contains;

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

/// Active parameters as published, counted with the whole embedding instead of a token's row.
template <class Definition>
constexpr Index published_active =
    cost<Definition>.active_parameters + Index{Definition::vocabulary - 1} * Definition::width;

// "47B parameters, 13B active" in the paper, 46.7 and 12.9 in the announcement.
static_assert(cost<Mixtral8x7b>.parameters == 46'702'792'704);
static_assert(published_active<Mixtral8x7b> == 12'879'925'248);
static_assert(cost<Mixtral8x7bOf<4096>>.parameters == cost<Mixtral8x7b>.parameters);
// "12B active, 52B total".
static_assert(cost<Jamba>.parameters == 51'570'323'328);
static_assert(published_active<Jamba> == 12'110'311'296);
static_assert(cost<Mistral7b>.parameters == 7'241'732'096);
static_assert(cost<Llama2Of7b>.parameters == 6'738'415'616);
static_assert(cost<Qwen2Of500m>.parameters == 494'032'768);
// Keys and values of a window in each layer, 2 · 4096 · 8 · 128 numbers, and the position.
static_assert(cost<Mistral7b>.state_bytes == 32 * (2 * 4096 * 8 * 128 + 2) * 4);
static_assert(cost<Mixtral8x7b>.state_bytes == Index{32} * (2 * 32768 * 8 * 128 + 2) * 4);

namespace {

/// What a config.json describes.
families::Architecture described(const std::string& text) {
  const test::Folder folder;
  test::write_bytes(folder / "config.json", text);
  return families::CheckpointFolder(folder.path()).architecture();
}

template <class Definition>
families::Architecture architecture() {
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
        architecture<Mamba130m>(), "LanguageModel<Vocabulary<50280>, Width<768>, Repeat<24, Mamba<>>>");
  check(described(R"({"d_model": 2560, "n_layer": 64, "vocab_size": 50277, "ssm_cfg": {}, "rms_norm": true,
          "residual_in_fp32": true, "fused_add_norm": true, "pad_vocab_size_multiple": 8})"),
        architecture<Mamba2800m>(), "LanguageModel<Vocabulary<50280>, Width<2560>, Repeat<64, Mamba<>>>");
  check(described(R"({"model_type": "falcon_mamba", "vocab_size": 65024, "hidden_size": 4096, "num_hidden_layers": 64,
          "state_size": 16, "conv_kernel": 4, "expand": 16, "intermediate_size": 8192, "time_step_rank": 256,
          "use_bias": false, "use_conv_bias": true, "layer_norm_epsilon": 1e-05, "mixer_rms_eps": 1e-06,
          "tie_word_embeddings": false})"),
        architecture<FalconMamba7b>(),
        "LanguageModel<Vocabulary<65024>, Width<4096>, Head, Repeat<64, Mamba<InnerNorm<RmsNorm<NoGain, "
        "Epsilon<1, 1000000>>>>>>");
  std::string layers;
  for (int i = 0; i < 15; ++i) layers += std::string(i == 0 ? "" : ", ") + R"("r", "8")";
  const auto black = described(R"({"num_layers": 30, "hidden_size": 1152, "state_size": 16, "conv_dimension": 4,
          "vocab_size": 50304, "expansion_factor": 2, "ffn_hidden_size": 3072, "add_bias_linear": false, "swiglu": true,
          "max_sequence_length": 2048, "mamba_moe_layers": [)" +
                               layers + "]}");
  check(black, architecture<BlackMamba1500m>(),
        "LanguageModel<Vocabulary<50304>, Width<1152>, FinalNorm<LayerNorm<>>, Repeat<15, Mamba<>, Moe<Experts<8>, "
        "Hidden<3072>, GeGlu, SigmoidThenTopK, RouterBias>>>");
  // The paper's activation matches as well, another one does not.
  CHECK_FALSE(families::difference(black, architecture<BlackMambaOf<15, 1152, 3072, SwiGlu>>()).has_value());
  CHECK(families::difference(black, architecture<BlackMambaOf<15, 1152, 3072, Gelu>>())->field == "layer 1: swiglu");
}

TEST_CASE("Configs of published models with attention describe their definitions", "[families]") {
  const auto check = [](const families::Architecture& config, const families::Architecture& definition) {
    CHECK_FALSE(families::difference(config, definition).has_value());
    CHECK_FALSE(families::difference(definition, config).has_value());
    CHECK(config.spelling() == definition.spelling());
  };
  const std::string mixtral_config = R"({"model_type": "mixtral", "vocab_size": 32000, "hidden_size": 4096,
          "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
          "hidden_act": "silu", "max_position_embeddings": 32768, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0,
          "sliding_window": null, "attention_dropout": 0.0, "num_local_experts": 8, "num_experts_per_tok": 2,
          "output_router_logits": false, "router_aux_loss_coef": 0.02, "tie_word_embeddings": false, "use_cache": true})";
  const auto mixtral = described(mixtral_config);
  check(mixtral, architecture<Mixtral8x7b>());
  CHECK(mixtral.spelling() ==
        "LanguageModel<Vocabulary<32000>, Width<4096>, Head, Repeat<32, Attention<Heads<32>, KeyValueHeads<8>, "
        "Context<32768>, Rotary<1000000>>, Moe<Experts<8>, TopK<2>, Hidden<14336>, SwiGlu, TopKThenSoftmax>>>");
  // Without a window, the length of the cache is the definition's choice.
  CHECK_FALSE(families::difference(mixtral, architecture<Mixtral8x7bOf<512>>()).has_value());

  const auto jamba = described(R"({"model_type": "jamba", "vocab_size": 65536, "hidden_size": 4096,
          "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
          "hidden_act": "silu", "max_position_embeddings": 262144, "rms_norm_eps": 1e-06, "sliding_window": null,
          "attn_layer_offset": 4, "attn_layer_period": 8, "expert_layer_offset": 1, "expert_layer_period": 2,
          "mamba_conv_bias": true, "mamba_d_conv": 4, "mamba_d_state": 16, "mamba_dt_rank": 256, "mamba_expand": 2,
          "mamba_inner_layernorms": true, "mamba_proj_bias": false, "attention_dropout": 0.0, "num_experts": 16,
          "num_experts_per_tok": 2, "num_logits_to_keep": 1, "output_router_logits": false, "use_mamba_kernels": true,
          "router_aux_loss_coef": 0.001, "tie_word_embeddings": false})");
  CHECK_FALSE(families::difference(jamba, architecture<Jamba>()).has_value());
  CHECK_FALSE(families::difference(architecture<Jamba>(), jamba).has_value());
  CHECK_FALSE(families::difference(jamba, architecture<JambaOf<4096>>()).has_value());

  const std::string mistral_config = R"({"model_type": "mistral", "vocab_size": 32000, "hidden_size": 4096,
          "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
          "hidden_act": "silu", "max_position_embeddings": 32768, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
          "sliding_window": 4096, "tie_word_embeddings": false})";
  check(described(mistral_config), architecture<Mistral7b>());
  check(described(R"({"model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "num_hidden_layers": 32,
          "num_attention_heads": 32, "num_key_value_heads": 32, "intermediate_size": 11008, "hidden_act": "silu",
          "max_position_embeddings": 4096, "rms_norm_eps": 1e-05, "rope_scaling": null, "pretraining_tp": 1,
          "tie_word_embeddings": false})"),
        architecture<Llama2Of7b>());
  check(described(R"({"model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "num_hidden_layers": 24,
          "num_attention_heads": 14, "num_key_value_heads": 2, "intermediate_size": 4864, "hidden_act": "silu",
          "max_position_embeddings": 131072, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "max_window_layers": 24,
          "sliding_window": 131072, "use_sliding_window": false, "tie_word_embeddings": true})"),
        architecture<Qwen2Of500m>());

  // A definition must have exactly the config's window.
  using OtherWindow =
      LanguageModel<Vocabulary<32000>, Width<4096>, Head,
                    Repeat<32, Attention<Heads<32>, KeyValueHeads<8>, Context<4095>>, Mlp<Hidden<14336>, SwiGlu>>>;
  const auto found = families::difference(described(mistral_config), architecture<OtherWindow>());
  REQUIRE(found.has_value());
  CHECK(found->field == "layer 0: sliding_window");
  CHECK(found->given == "4096, which means Context<4096>");
}

namespace {

template <class Definition>
bool has_parameter(std::string_view name) {
  for (const Parameter& parameter : parameter_list<Definition>()) {
    if (parameter.name.view() == name) return true;
  }
  return false;
}

}  // namespace

TEST_CASE("Layers of Jamba are in the order of its description", "[families]") {
  // Mixers and feed-forward layers alternate: those of public layer i are 2 i and 2 i + 1.
  for (int i = 0; i < 32; ++i) {
    const std::string mixer = "layers." + std::to_string(2 * i) + ".mixer.";
    const std::string feed_forward = "layers." + std::to_string(2 * i + 1) + ".mixer.";
    CHECK(has_parameter<Jamba>(mixer + "q_proj.weight") == (i % 8 == 4));
    CHECK(has_parameter<Jamba>(mixer + "A_log") == (i % 8 != 4));
    CHECK(has_parameter<Jamba>(feed_forward + "router.weight") == (i % 2 == 1));
  }
}

TEST_CASE("A config's model_type takes precedence over its other fields", "[families]") {
  // As public configs of transformers do, with the fields that the authors' own code reads.
  const auto hf = described(R"({"model_type": "mamba", "vocab_size": 51, "hidden_size": 16, "num_hidden_layers": 1,
          "state_size": 5, "conv_kernel": 4, "expand": 2, "intermediate_size": 32, "time_step_rank": 1, "use_bias": false,
          "use_conv_bias": true, "layer_norm_epsilon": 1e-2, "hidden_act": "silu", "d_model": 16, "n_layer": 1,
          "ssm_cfg": {}, "rms_norm": true, "pad_vocab_size_multiple": 8})");
  CHECK(hf.spelling() ==
        "LanguageModel<Vocabulary<51>, Width<16>, FinalNorm<RmsNorm<Epsilon<1, 100>>>, PreNorm<RmsNorm<Epsilon<1, "
        "100>>>, "
        "Mamba<State<5>>>");
}

TEST_CASE("The base of rotary positions may be in any of its fields, which must agree", "[families]") {
  const auto llama = [](const std::string& fields) {
    return R"({"model_type": "llama", "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 4,
               "num_attention_heads": 2, "max_position_embeddings": 32, "hidden_act": "silu", )" +
           fields + "}";
  };
  const auto base = [&](const std::string& fields) { return described(llama(fields)).layers[0]["Rotary"]; };
  CHECK(base(R"("rms_norm_eps": 1e-5)") == 10'000);
  CHECK(base(R"("rope_theta": 700)") == 700);
  CHECK(base(R"("rope_scaling": {"rope_type": "default", "rope_theta": 500.0})") == 500);
  CHECK(base(R"("rope_parameters": {"rope_theta": 500}, "rope_theta": 500.0)") == 500);
  CHECK_THROWS_WITH(base(R"("rope_parameters": {"rope_theta": 500}, "rope_scaling": {"rope_theta": 600})"),
                    Contains("rope_scaling.rope_theta is 600; allowed: 500, as in rope_parameters.rope_theta"));
  CHECK_THROWS_WITH(base(R"("rope_parameters": "x")"),
                    Contains("rope_parameters is") && !Contains("rope_parameters. "));
}

TEST_CASE("Layers whose windows contradict sliding_window are refused", "[families]") {
  const auto mistral = [](const std::string& window, const std::string& types) {
    return described(R"({"model_type": "mistral", "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 2,
               "intermediate_size": 4, "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32,
               "sliding_window": )" +
                     window + R"(, "layer_types": )" + types + "}");
  };
  const std::string full = R"(["full_attention", "full_attention"])",
                    sliding = R"(["sliding_attention", "sliding_attention"])";
  CHECK(mistral("4", sliding).layers[0]["Context"] == 4);
  CHECK(mistral("null", full).layers[0]["Context"] == 32);
  CHECK_THROWS_WITH(mistral("4", full),
                    Contains("layer_types element is \"full_attention\"; allowed: \"sliding_attention\""));
  CHECK_THROWS_WITH(mistral("null", sliding), Contains("layer_types element"));
}

TEST_CASE("Qwen2 has windows if its config enables them, in the layers that it lists", "[families]") {
  const auto contexts = [](const std::string& fields) {
    std::vector<Index> result;
    const auto model = described(R"({"model_type": "qwen2", "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 3,
               "intermediate_size": 4, "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32)" +
                                 fields + "}");
    for (std::size_t i = 0; i < model.layers.size(); i += 2) result.push_back(model.layers[i]["Context"]);
    return result;
  };
  const auto all = [](Index context) { return std::vector<Index>(3, context); };
  const std::string on = R"(, "use_sliding_window": true)", four = on + R"(, "sliding_window": 4)",
                    full = R"(, "layer_types": ["full_attention", "full_attention", "full_attention"])";
  CHECK(contexts("") == all(32));
  CHECK(contexts(R"(, "use_sliding_window": false, "sliding_window": 4, "max_window_layers": 0)") == all(32));
  CHECK(contexts(four) == all(32));  // the first 28 layers have none
  CHECK(contexts(four + full) == all(32));
  CHECK(contexts(on + R"(, "sliding_window": null, "max_window_layers": 0)" + full) == all(32));
  CHECK(contexts(on + R"(, "max_window_layers": 0)") == all(4096));
  CHECK(contexts(four + R"(, "max_window_layers": 0)") == all(4));
  CHECK(contexts(four + R"(, "max_window_layers": 2)") == std::vector<Index>{32, 32, 4});
  CHECK(contexts(four + R"(, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"])") ==
        std::vector<Index>{4, 32, 4});
  CHECK_THROWS_WITH(
      contexts(R"(, "layer_types": ["sliding_attention", "full_attention", "full_attention"])"),
      Contains("layer_types element is \"sliding_attention\"; allowed: \"full_attention\" for every layer"));
  CHECK_THROWS_WITH(contexts(four + R"(, "layer_types": ["full_attention"])"),
                    Contains("layer_types is an array of 1; allowed: one element for each of 3 layers"));
  CHECK_THROWS_WITH(contexts(four + R"(, "layer_types": ["full_attention", "full_attention", "linear"])"),
                    Contains("layer_types element is \"linear\""));
}

TEST_CASE("A definition's options are reproduced by its spelling", "[families]") {
  using Attentive =
      LanguageModel<Vocabulary<9>, Width<6>, Attention<Heads<3>, Context<8>>,
                    Attention<Heads<4>, KeyValueHeads<2>, HeadWidth<6>, Context<5>, Rotary<77>, RotaryWidth<4>, Biases>,
                    Attention<Heads<2>, KeyValueHeads<2>, HeadWidth<3>, Context<5>, NoPositions, InputBiases>>;
  CHECK(architecture<Attentive>().spelling() ==
        "LanguageModel<Vocabulary<9>, Width<6>, Attention<Heads<3>, Context<8>>, Attention<Heads<4>, KeyValueHeads<2>, "
        "HeadWidth<6>, Context<5>, Rotary<77>, RotaryWidth<4>, Biases>, Attention<Heads<2>, Context<5>, NoPositions, "
        "InputBiases>>");
  using Mixed = LanguageModel<Vocabulary<9>, Width<6>, Head, PreNorm<LayerNorm<>>, Mamba<State<3>, Expand<1>>,
                              Residual<RmsNorm<Epsilon<2, 4000>>, Mlp<Hidden<5>, SwiGlu>>, Repeat<2, Mlp<>>,
                              Moe<Experts<4>, TopK<2>, TopKThenSoftmax, SharedExperts<1>, Capacity<5, 4>>,
                              Moe<Experts<4>, FloorCapacity<5, 4>>>;
  CHECK(architecture<Mixed>().spelling() ==
        "LanguageModel<Vocabulary<9>, Width<6>, Head, PreNorm<LayerNorm<>>, Mamba<State<3>, Expand<1>>, "
        "Residual<RmsNorm<Epsilon<1, 2000>>, Mlp<Hidden<5>, SwiGlu>>, Repeat<2, Mlp<>>, Moe<Experts<4>, TopK<2>, "
        "SharedExperts<1>, TopKThenSoftmax, Capacity<5, 4>>, Moe<Experts<4>, FloorCapacity<5, 4>>>");
}
