// Configs with fields beyond a family's own: these must be consistent with them, or something that the library
// supports.
#include <string>
#include <vector>

#include "moe_mamba/families/families.hpp"
#include "support/catch.hpp"
#include "support/folder.hpp"

using namespace moe_mamba;
using test::Contains;

namespace {

families::Architecture described(const std::string& text) {
  const families::Config config("config.json", parse_json(text, "config.json"));
  return families::family_of(config).architecture(config);
}

/// A config of four layers with one more field.
std::string config_of(const std::string& family, const std::string& field) {
  return R"({"model_type": ")" + family +
         R"(", "vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4, "d_model": 16,
               "num_key_value_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64, "num_experts": 3,
               "num_local_experts": 3, "num_experts_per_tok": 2, "attn_layer_period": 2, "attn_layer_offset": 1,
               "expert_layer_period": 3, "expert_layer_offset": 2, )" +
         field + "}";
}

constexpr const char* families_of_transformers[] = {"mamba",   "falcon_mamba", "mixtral", "jamba",
                                                    "mistral", "llama",        "qwen2"};

}  // namespace

TEST_CASE("An encoder-decoder model is refused, independent of other fields", "[families]") {
  for (const std::string family : families_of_transformers) {
    INFO(family);
    CHECK_NOTHROW(described(config_of(family, R"("is_encoder_decoder": false)")));
    CHECK_NOTHROW(described(config_of(family, R"("is_encoder_decoder": null)")));
    CHECK_THROWS_WITH(described(config_of(family, R"("is_encoder_decoder": true)")),
                      Contains("config.json: model_type is \"" + family +
                               "\", an encoder-decoder model, as is_encoder_decoder is true; allowed: a decoder-only"));
    CHECK_THROWS_WITH(described(config_of(family, R"("is_encoder_decoder": 1)")),
                      Contains("is_encoder_decoder is 1; allowed: true or false"));
  }
  CHECK_THROWS_WITH(described(R"({"d_model": 16, "n_layer": 2, "vocab_size": 30, "is_encoder_decoder": true})"),
                    Contains("model_type is missing, an encoder-decoder model, as is_encoder_decoder is true"));
}

TEST_CASE("Quantised tensors are refused with a clear message", "[families]") {
  for (const char* family : families_of_transformers) {
    INFO(family);
    CHECK_NOTHROW(described(config_of(family, R"("quantization_config": null)")));
    CHECK_THROWS_WITH(described(config_of(family, R"("quantization_config": {"quant_method": "gptq", "bits": 4})")),
                      Contains("quantization_config is an object of 2; allowed: null: quantised tensors are not "
                               "supported"));
  }
}

TEST_CASE("The base of rotary positions may be given per kind of layer", "[families]") {
  for (const char* family : {"llama", "mistral", "mixtral", "qwen2"}) {
    for (const std::string field : {"rope_parameters", "rope_scaling"}) {
      INFO(family << ' ' << field);
      const auto base = [&](const std::string& inner, const std::string& beside = "") {
        return described(config_of(family, "\"" + field + "\": {" + inner + "}" + beside)).layers[0]["Rotary"];
      };
      const std::string full = R"("full_attention": {"rope_type": "default", "rope_theta": 5000})";
      CHECK(base(full) == 5000);
      CHECK(base(full + R"(, "sliding_attention": {"rope_theta": 5000.0})") == 5000);
      CHECK(base(full + R"(, "sliding_attention": null)", R"(, "rope_theta": 5000)") == 5000);
      CHECK(base(full + R"(, "rope_theta": 5000)") == 5000);
      CHECK_THROWS_WITH(base(full + R"(, "sliding_attention": {"rope_theta": 700})"),
                        Contains(field + ".sliding_attention.rope_theta is 700; allowed: 5000, as in " + field +
                                 ".full_attention.rope_theta"));
      CHECK_THROWS_WITH(base(full + R"(, "sliding_attention": {})"),
                        Contains(field + ".sliding_attention.rope_theta is missing; allowed: a whole number"));
      CHECK_THROWS_WITH(base(full, R"(, "rope_theta": 10000)"),
                        Contains("rope_theta is 10000; allowed: 5000, as in " + field + ".full_attention.rope_theta"));
      CHECK_THROWS_WITH(base(R"("full_attention": {"rope_type": "yarn", "rope_theta": 5000})"),
                        Contains(field + ".full_attention.rope_type is \"yarn\"; allowed: \"default\""));
      CHECK_THROWS_WITH(base(R"("full_attention": {"partial_rotary_factor": 0.5, "rope_theta": 5000})"),
                        Contains(field + ".full_attention.partial_rotary_factor is 0.5"));
      CHECK_THROWS_WITH(base(R"("full_attention": {"rope_theta": 5000, "main": {"rope_theta": 7}})"),
                        Contains(field + ".full_attention.\"main\" is an object of 1; allowed: no nested objects"));
      CHECK_THROWS_WITH(base(R"("main\n": {"rope_theta": 5000})"),
                        Contains(field + ".\"main\\x0a\" is an object of 1; allowed: no nested objects except "
                                         "full_attention, sliding_attention"));
    }
  }
}

TEST_CASE("Partially rotated heads are refused wherever a config states them", "[families]") {
  struct Place {
    std::string before, after, path;
  };
  std::vector<Place> places{{"", "", ""}};
  for (const std::string field : {"rope_parameters", "rope_scaling"}) {
    places.push_back({"\"" + field + R"(": {"rope_theta": 5000, )", "}", field + "."});
    for (const std::string kind : {"full_attention", "sliding_attention"}) {
      places.push_back(
          {"\"" + field + "\": {\"" + kind + R"(": {"rope_theta": 5000, )", "}}", field + "." + kind + "."});
    }
  }
  for (const char* family : {"llama", "mistral", "mixtral", "qwen2"}) {
    for (const Place& place : places) {
      INFO(family << ' ' << place.path);
      const auto with = [&](const std::string& factor) {
        return config_of(family, place.before + "\"partial_rotary_factor\": " + factor + place.after);
      };
      for (const char* whole : {"1", "1.0", "null"}) {
        INFO(whole);
        CHECK_NOTHROW(described(with(whole)));
      }
      for (const std::string part : {"0.5", "0.25", "0", "2", "\"half\"", "true"}) {
        CHECK_THROWS_WITH(described(with(part)),
                          Contains("config.json: " + place.path + "partial_rotary_factor is " + part + "; allowed: 1"));
      }
    }
  }
}

TEST_CASE("Lists of Jamba's layers must be consistent with its periods", "[families]") {
  const auto refusal = [](const std::string& field) {
    return test::message_of<std::runtime_error>([&] { (void)described(config_of("jamba", field)); });
  };
  for (const std::string list : {"layer_types", "layers_block_type"}) {
    INFO(list);
    const std::string key = "\"" + list + "\": ";
    CHECK_NOTHROW(described(config_of("jamba", key + R"(["mamba", "attention", "mamba", "attention"])")));
    CHECK_THAT(refusal(key + R"(["mamba", "attention", "attention", "mamba"])"),
               Contains(list + " of layer 2 is \"attention\"; allowed: \"mamba\", according to "
                               "attn_layer_period and attn_layer_offset"));
    CHECK_THAT(refusal(key + R"(["mamba", "mamba", "mamba", "attention"])"),
               Contains(list + " of layer 1 is \"mamba\"; allowed: \"attention\""));
    CHECK_THAT(refusal(key + R"(["mamba", "attention"])"),
               Contains(list + " is an array of 2; allowed: one element for each of 4 layers"));
    CHECK_THAT(refusal(key + R"("mamba")"), Contains(list + " is \"mamba\"; allowed: an array"));
  }
  CHECK_NOTHROW(described(config_of("jamba", R"("layers_num_experts": [1, 1, 3, 1])")));
  CHECK_THAT(refusal(R"("layers_num_experts": [1, 3, 1, 3])"),
             Contains("layers_num_experts of layer 1 is 3; allowed: 1, according to expert_layer_period, "
                      "expert_layer_offset and num_experts"));
}
