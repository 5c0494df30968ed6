// Mixtral against transformers' MixtralForCausalLM: grouped heads, rotary positions, windows, renormalised gates.
#include "families/folders.hpp"

using namespace moe_mamba;
using test::Contains;
using test::edit;

namespace {

using Net = test::SmallMixtral;

/// The message if a field of the config has another value.
std::string with_field(const std::string& from, const std::string& to) {
  return test::refusal<Net>([&](const test::Folder& folder) { edit(folder / "config.json", from, to); }, "mixtral");
}

}  // namespace

TEST_CASE("Mixtral matches transformers", "[families][mixtral]") { test::check_fixture<Net>("mixtral"); }

TEST_CASE("Mixtral with a window matches transformers", "[families][mixtral]") {
  test::check_fixture<test::SmallMixtralWindow>("mixtral_window");
}

TEST_CASE("Mixtral of one step matches transformers", "[families][mixtral]") {
  test::check_fixture<test::MixtralOfOneStep>("mixtral_step");
}

TEST_CASE("Experts in one tensor per layer give the same Mixtral", "[families][mixtral]") {
  const auto expected = load<Net>(Pretrained{test::fixture_folder("mixtral")});
  const auto model = load<Net>(Pretrained{test::fixture_folder("mixtral_one_tensor")});
  CHECK(std::equal(model.parameters().begin(), model.parameters().end(), expected.parameters().begin()));
  const std::string up = "model.layers.1.mlp.experts.gate_up_proj",
                    one = "model.layers.1.block_sparse_moe.experts.0.w1";
  CHECK_THAT(test::refusal<Net>(
                 [&](const test::Folder& folder) {
                   test::rewrite(folder / "model.safetensors", [&](auto& tensors) {
                     tensors.push_back(test::find(tensors, up));
                     tensors.back().name = one + ".weight";
                   });
                 },
                 "mixtral_one_tensor"),
             Contains(one));
  CHECK_THAT(test::refusal<Net>(
                 [&](const test::Folder& folder) {
                   test::rewrite(folder / "model.safetensors",
                                 [&](auto& tensors) { test::find(tensors, up).name = "other"; });
                 },
                 "mixtral_one_tensor"),
             Contains(one + ".weight\" is missing") && Contains("of which \"other\" belongs to no parameter"));
  CHECK_THAT(test::refusal<Net>(
                 [&](const test::Folder& folder) {
                   test::rewrite(folder / "model.safetensors", [&](auto& tensors) {
                     test::find(tensors, up).shape = {5, 12, 14};
                   });
                 },
                 "mixtral_one_tensor"),
             Contains(up + "\": shape is [5, 12, 14]; allowed: [5, 14, 12]"));
}

TEST_CASE("A Mixtral that the library does not support is refused by field", "[families][mixtral]") {
  CHECK_THAT(with_field("\"silu\"", "\"relu\""),
             Contains("hidden_act is \"relu\"; allowed: \"silu\", \"swish\", \"gelu\" or \"gelu_python\""));
  CHECK_THAT(with_field("\"rope_type\": \"default\"", "\"rope_type\": \"yarn\""),
             Contains("rope_parameters.rope_type is \"yarn\"; allowed: \"default\""));
  CHECK_THAT(with_field("\"rope_theta\": 100.0", "\"rope_theta\": 100.5"),
             Contains("rope_parameters.rope_theta is 100.5; allowed: a whole number from 2 to 1073741824"));
  CHECK_THAT(with_field("\"rope_theta\": 100.0", "\"partial_rotary_factor\": 0.5, \"rope_theta\": 100.0"),
             Contains("rope_parameters.partial_rotary_factor is 0.5; allowed: 1"));
  CHECK_THAT(with_field("\"vocab_size\"", "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.0}, \"vocab_size\""),
             Contains("rope_scaling.type is \"linear\"; allowed: \"default\""));
  CHECK_THAT(with_field("\"vocab_size\"", "\"rope_theta\": 10000.0, \"vocab_size\""),
             Contains("rope_theta is 10000; allowed: 100, as in rope_parameters.rope_theta"));
  CHECK_THAT(with_field("\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 1"),
             Contains("num_experts_per_tok is 1; allowed: 2 or more"));
  CHECK_THAT(with_field("\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 6"),
             Contains("num_experts_per_tok is 6; allowed: an integer from 1 to 5"));
  CHECK_THAT(with_field("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3"),
             Contains("num_key_value_heads is 3; allowed: a divisor of num_attention_heads, 4"));
  CHECK_THAT(with_field("\"head_dim\": 6", "\"head_dim\": 5"), Contains("head_dim is 5; allowed: an even number"));
  CHECK_THAT(with_field("\"head_dim\": 6", "\"head_dim\": 300"), Contains("allowed: an integer from 1 to 256"));
  CHECK_THAT(with_field("\"sliding_window\": null", "\"sliding_window\": 0"),
             Contains("sliding_window is 0; allowed: an integer from 1 to 16777216"));
  // Valid, but a different model from the definition's.
  CHECK_THAT(with_field("\"silu\"", "\"gelu\""),
             Contains("layer 1: hidden_act is \"gelu\", which means GeGlu; allowed: SwiGlu"));
  CHECK_THAT(with_field("\"sliding_window\": null", "\"sliding_window\": 39"),
             Contains("layer 0: sliding_window is 39, which means Context<39>; allowed: Context<40>"));
  CHECK_THAT(with_field("\"rope_theta\": 100.0", "\"rope_theta\": 1e4"),
             Contains("layer 0: rope_parameters.rope_theta is 10000, which means Rotary<10000>; allowed: Rotary<100>"));
  CHECK_THAT(with_field("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"),
             Contains("num_hidden_layers * 2 (a mixer and a feed-forward layer each) is 6; allowed: 4"));
  CHECK_THAT(with_field("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true"),
             Contains("tie_word_embeddings is true, which means TiedHead; allowed: Head"));
  CHECK_THAT(with_field("\"head_dim\": 6", "\"head_dim\": null"),
             Contains("hidden_size / num_attention_heads is 3; allowed: an even number"));
  CHECK_THAT(with_field("\"head_dim\": 6", "\"head_dim\": 8"),
             Contains("layer 0: head_dim is 8, which means HeadWidth<8>; allowed: HeadWidth<6>"));
  // Without a window, a definition may have any context.
  CHECK(with_field("\"max_position_embeddings\": 40", "\"max_position_embeddings\": 4096").empty());
  // Fields that concern training only, and the activation by its other name.
  CHECK(with_field("\"attention_dropout\": 0.0", "\"attention_dropout\": 0.1").empty());
  CHECK(with_field("\"router_jitter_noise\": 0.0", "\"router_jitter_noise\": 0.01").empty());
  CHECK(with_field("\"silu\"", "\"swish\"").empty());
  // As transformers wrote it until version 4.
  CHECK(with_field("\"rope_parameters\": {\n    \"rope_theta\": 100.0,\n    \"rope_type\": \"default\"\n  }",
                   "\"rope_theta\": 100.0")
            .empty());
}
