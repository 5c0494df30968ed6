// Llama, Mistral and Qwen2 against transformers: biases, windows, tied heads.
#include "families/folders.hpp"

using namespace moe_mamba;
using test::Contains;
using test::edit;

namespace {

using Llama = test::SmallLlama;
using Mistral = test::SmallMistral;
using Qwen2 = test::SmallQwen2;

/// The message if a field of the config has another value.
template <class Definition>
std::string with_field(const char* fixture, const std::string& from, const std::string& to) {
  return test::refusal<Definition>([&](const test::Folder& folder) { edit(folder / "config.json", from, to); },
                                   fixture);
}

}  // namespace

TEST_CASE("Llama with biases matches transformers", "[families][llama]") { test::check_fixture<Llama>("llama"); }

TEST_CASE("Mistral with a window matches transformers", "[families][llama]") {
  test::check_fixture<Mistral>("mistral");
}

TEST_CASE("Qwen2 with biases and a tied head matches transformers", "[families][llama]") {
  test::check_fixture<Qwen2>("qwen2");
}

TEST_CASE("A Llama, Mistral or Qwen2 that the library does not support is refused by field", "[families][llama]") {
  CHECK_THAT(with_field<Llama>("llama", "\"mlp_bias\": false", "\"mlp_bias\": true"),
             Contains("mlp_bias is true; allowed: false"));
  CHECK_THAT(with_field<Llama>("llama", "\"attention_bias\": true", "\"attention_bias\": false"),
             Contains("layer 0: attention_bias is false, which means no biases; allowed: Biases"));
  CHECK_THAT(with_field<Llama>("llama", "\"rope_type\": \"default\"", "\"rope_type\": \"llama3\", \"factor\": 8.0"),
             Contains("rope_parameters.rope_type is \"llama3\"; allowed: \"default\""));
  CHECK_THAT(with_field<Llama>("llama", "\"hidden_size\": 12", "\"hidden_size\": 13"),
             Contains("num_attention_heads is 3; allowed: a divisor of hidden_size, 13"));
  CHECK_THAT(with_field<Llama>("llama", "\"vocab_size\"", "\"sliding_window\": 8, \"vocab_size\""),
             Contains("sliding_window is 8; allowed: null"));
  // Without a window, a definition may have any context.
  CHECK(with_field<Mistral>("mistral", "\"sliding_window\": 7", "\"sliding_window\": null").empty());
  CHECK_THAT(with_field<Mistral>("mistral", "\"sliding_window\": 7", "\"window\": 7"),
             Contains("layer 0: sliding_window is missing, which means Context<4096>; allowed: Context<7>"));
  CHECK_THAT(with_field<Mistral>("mistral", "\"sliding_window\": 7", "\"sliding_window\": 8"),
             Contains("layer 0: sliding_window is 8, which means Context<8>; allowed: Context<7>"));
  CHECK(with_field<Qwen2>("qwen2", "\"use_sliding_window\": false", "\"use_sliding_window\": true").empty());
  CHECK_THAT(with_field<Qwen2>("qwen2", "\"rope_type\": \"default\"", "\"rope_type\": \"yarn\""),
             Contains("rope_parameters.rope_type is \"yarn\"; allowed: \"default\""));
}
