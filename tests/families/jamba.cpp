// Jamba against transformers' JambaForCausalLM: Mamba with inner norms, attention without positions, experts weighted
// by probabilities.
#include "families/folders.hpp"

using namespace moe_mamba;
using test::Contains;
using test::edit;

namespace {

using Net = test::SmallJamba;

/// The message if a field of the config has another value.
std::string with_field(const std::string& from, const std::string& to) {
  return test::refusal<Net>([&](const test::Folder& folder) { edit(folder / "config.json", from, to); }, "jamba");
}

}  // namespace

TEST_CASE("Jamba matches transformers", "[families][jamba]") { test::check_fixture<Net>("jamba"); }

TEST_CASE("Jamba without experts, with biases, matches transformers", "[families][jamba]") {
  test::check_fixture<test::SmallJambaDense>("jamba_dense");
}

TEST_CASE("Jamba of one step matches transformers", "[families][jamba]") {
  test::check_fixture<test::JambaOfOneStep>("jamba_step");
}

TEST_CASE("Experts in one tensor per layer give the same Jamba", "[families][jamba]") {
  const auto expected = load<Net>(Pretrained{test::fixture_folder("jamba")});
  const auto model = load<Net>(Pretrained{test::fixture_folder("jamba_one_tensor")});
  CHECK(std::equal(model.parameters().begin(), model.parameters().end(), expected.parameters().begin()));
}

TEST_CASE("A Jamba that the library does not support is refused by field", "[families][jamba]") {
  CHECK_THAT(with_field("\"silu\"", "\"relu\""), Contains("hidden_act is \"relu\"; allowed: \"silu\" or \"swish\""));
  CHECK_THAT(with_field("\"attn_layer_offset\": 2", "\"attn_layer_offset\": 3"),
             Contains("attn_layer_offset is 3; allowed: an integer from 0 to 2"));
  CHECK_THAT(with_field("\"expert_layer_period\": 2", "\"expert_layer_period\": 0"),
             Contains("expert_layer_period is 0; allowed: an integer from 1"));
  CHECK_THAT(with_field("\"vocab_size\"", "\"mamba_inner_layernorms\": false, \"vocab_size\""),
             Contains("mamba_inner_layernorms is false; allowed: true"));
  CHECK_THAT(with_field("\"vocab_size\"", "\"sliding_window\": 8, \"vocab_size\""),
             Contains("sliding_window is 8; allowed: null"));
  CHECK_THAT(with_field("\"num_experts\": 5", "\"num_experts\": 0"), Contains("num_experts is 0; allowed: an integer"));
  CHECK_THAT(with_field("\"mamba_d_state\": 3", "\"mamba_d_state\": 4"),
             Contains("layer 0: mamba_d_state is 4, which means State<4>; allowed: State<3>"));
  CHECK_THAT(with_field("\"attn_layer_offset\": 2", "\"attn_layer_offset\": 1"),
             Contains("layer 2: kind is Attention; allowed: Mamba"));
  CHECK_THAT(with_field("\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": 1e-05"),
             Contains("rms_norm_eps is 1e-05, which means FinalNorm<RmsNorm<>>"));
}
