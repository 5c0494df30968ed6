#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "moe_mamba/families/attention_fields.hpp"
#include "moe_mamba/families/family.hpp"
#include "moe_mamba/families/layer_spec.hpp"

/// Transformers with the layers of Llama (Touvron et al. 2023, arXiv 2302.13971), attention and a gated feed-forward
/// layer, each after a norm: Llama, Mistral (Jiang et al. 2023, arXiv 2310.06825), Qwen2 (Yang et al. 2024, arXiv
/// 2407.10671), and what Mixtral and Jamba share with them. A public layer is two layers of this library.
namespace moe_mamba::inline v0_2::families {

namespace detail {

/// A parsed parameter name: "layers.7.mixer.q_proj.weight" is "q_proj.weight" of the second half of public layer 3.
struct LayerName {
  std::string prefix;  // "model.layers.3.", or empty for a parameter of no layer
  bool second = false;
  std::string rest;  // "norm.weight" is the pre-norm's

  explicit LayerName(const Parameter& parameter) {
    const std::string_view name = parameter.name.view(), begin = "layers.";
    if (!name.starts_with(begin)) return;
    Index number = 0;
    std::size_t at = begin.size();
    for (; name[at] != '.'; ++at) number = 10 * number + (name[at] - '0');
    prefix = "model.layers." + std::to_string(number / 2) + ".";
    second = number % 2 == 1;
    rest = with_prefix(name.substr(at + 1), "mixer.", "");
  }
};

/// The tensors of parameters outside the layers.
inline std::vector<TensorPart> outer_parts(const Parameter& parameter, const char* final_norm) {
  const std::string_view name = parameter.name.view();
  if (name == "embedding.weight") return {whole(parameter, "model.embed_tokens.weight")};
  if (name == "norm_f.weight") return {whole(parameter, final_norm)};
  return {whole(parameter, std::string(name))};
}

/// The tensors of a gated feed-forward layer: `up` has the gate's rows first.
inline std::vector<TensorPart> gated_parts(const Parameter& parameter, const LayerName& name, const char* inside) {
  if (name.rest != "up.weight") return {whole(parameter, name.prefix + inside + "down_proj.weight")};
  return block_parts(parameter, 2, [&](Index, Index block) {
    return name.prefix + inside + (block == 0 ? "gate_proj.weight" : "up_proj.weight");
  });
}

/// Tensors with the rotary frequencies in files until 2023; they follow from the config.
inline constexpr char rotary_frequencies[] = ".rotary_emb.inv_freq";

inline std::vector<TensorPart> llama_parts(const Parameter& parameter) {
  const LayerName name(parameter);
  if (name.prefix.empty()) return outer_parts(parameter, "model.norm.weight");
  if (name.rest == "norm.weight") {
    return {whole(parameter, name.prefix + (name.second ? "post_attention_layernorm" : "input_layernorm") + ".weight")};
  }
  if (!name.second) return {whole(parameter, name.prefix + "self_attn." + name.rest)};
  return gated_parts(parameter, name, "mlp.");
}

/// The options of the whole model in a config.json of these families, without layers.
inline Architecture outer_architecture(const Config& config, const NormSpec& norm) {
  Architecture model =
      language_model(config.integer("vocab_size", 1, 1 << 28), config.integer("hidden_size", 1, 1 << 20),
                     config.boolean("tie_word_embeddings", false), norm);
  config.note(model, "Vocabulary", "vocab_size");
  config.note(model, "Width", "hidden_size");
  config.note(model, "the head", "tie_word_embeddings");
  config.note(model, "FinalNorm", "rms_norm_eps");
  model.depth.field = "num_hidden_layers * 2 (a mixer and a feed-forward layer each)";
  return model;
}

/// The activation of a feed-forward layer, by any of its names.
inline std::string gated_activation(const Config& config) {
  const auto is = [&](const char* name) { return config.is_text("hidden_act", name); };
  if (!config.has("hidden_act") || is("silu") || is("swish")) return "SwiGlu";
  if (is("gelu") || is("gelu_python")) return "GeGlu";
  config.refuse("hidden_act", config.find("hidden_act")->text(), R"("silu", "swish", "gelu" or "gelu_python")");
}

/// A feed-forward layer.
inline LayerSpec gated_mlp_layer(const Config& config, Index width) {
  LayerSpec layer = MlpSpec{.width = width,
                            .hidden = config.integer("intermediate_size", 1, 1 << 24),
                            .activation = gated_activation(config)}
                        .layer();
  config.note(layer, "the activation", "hidden_act");
  config.note(layer, "Hidden", "intermediate_size");
  return layer;
}

/// Attention and the feed-forward layer, `num_hidden_layers` times.
inline void add_layers(const Config& config, Architecture& model, const AttentionDefaults& defaults,
                       const OptionSpec& rotary, const char* biases, LayerSpec feed_forward, const NormSpec& norm) {
  feed_forward.norm = config.from(pre_norm(norm), "rms_norm_eps");
  for (const bool is_window : windowed_layers(config, defaults)) {
    model.layers.push_back(attention_layer(config, model["Width"], defaults, is_window, &rotary, biases));
    model.layers.back().norm = feed_forward.norm;
    model.layers.push_back(feed_forward);
  }
}

/// The three families without experts.
inline Architecture dense_architecture(const Config& config, const AttentionDefaults& defaults, const char* biases) {
  const NormSpec norm{"RmsNorm", config.epsilon("rms_norm_eps", {1, 1'000'000})};
  Architecture model = outer_architecture(config, norm);
  add_layers(config, model, defaults, rotary_option(config, 10'000), biases, gated_mlp_layer(config, model["Width"]),
             norm);
  return model;
}

/// The first layer of that name, or one without options.
inline LayerSpec first_layer(const Architecture& model, const char* name) {
  for (const LayerSpec& layer : model.layers) {
    if (layer.name == name) return layer;
  }
  return {name, {}};
}

/// The attention layer with the largest context, or a layer without options.
inline LayerSpec farthest_attention(const Architecture& model) {
  LayerSpec farthest = first_layer(model, "Attention");
  for (const LayerSpec& layer : model.layers) {
    if (layer.name == "Attention" && layer["Context"] > farthest["Context"]) farthest = layer;
  }
  return farthest;
}

/// The fields that these families share. `hidden` is the layer with the hidden width.
inline ConfigWriter outer_config(const Architecture& model, const LayerSpec& attention, const LayerSpec& hidden,
                                 const std::string& type) {
  ConfigWriter config;
  config.add("vocab_size", model["Vocabulary"]).add("hidden_size", model["Width"]);
  config.add("num_hidden_layers", static_cast<Index>(model.layers.size()) / 2);
  config.add("num_attention_heads", attention["Heads"]).add("num_key_value_heads", attention["KeyValueHeads"]);
  config.add("head_dim", attention["HeadWidth"]).add("max_position_embeddings", attention["Context"]);
  config.add("intermediate_size", hidden["Hidden"]);
  const OptionSpec* activation = hidden.find("the activation");
  config.text("hidden_act", activation != nullptr && activation->spelling == "GeGlu" ? "gelu" : "silu");
  config.number("rms_norm_eps", model.at("FinalNorm").number).flag("tie_word_embeddings", model.tied_head());
  // The name until transformers 4.55, and the one since.
  config.text("torch_dtype", type).text("dtype", type);
  return config;
}

/// Rotary positions in the format of transformers 4, and in that of 5.
inline void add_rotary(ConfigWriter& config, const LayerSpec& attention) {
  ConfigWriter inner;
  inner.add("rope_theta", attention["Rotary"]).text("rope_type", "default");
  config.add("rope_theta", attention["Rotary"]).raw("rope_parameters", inner.finish());
}

/// Which layers have the smaller of two contexts, if the layers differ.
inline void add_windows(ConfigWriter& config, const Architecture& model) {
  const Index farthest = farthest_attention(model)["Context"];
  Index nearest = farthest;
  for (const LayerSpec& layer : model.layers) {
    if (layer.name == "Attention") nearest = std::min(nearest, layer["Context"]);
  }
  config.flag("use_sliding_window", nearest != farthest);
  if (nearest == farthest) return;
  std::string types;
  for (const LayerSpec& layer : model.layers) {
    if (layer.name != "Attention") continue;
    types += (types.empty() ? "" : ", ") +
             std::string(layer["Context"] == nearest ? "\"sliding_attention\"" : "\"full_attention\"");
  }
  config.add("sliding_window", nearest).raw("layer_types", "[" + types + "]");
}

inline ConfigWriter dense_config(const Architecture& model, const std::string& type) {
  const LayerSpec attention = farthest_attention(model);
  ConfigWriter config = outer_config(model, attention, first_layer(model, "Mlp"), type);
  add_rotary(config, attention);
  return config;
}

}  // namespace detail

inline constexpr Family llama{
    .name = "llama",
    .recognises = [](const Config& config) { return config.is_text("model_type", "llama"); },
    .architecture =
        [](const Config& config) {
          config.require_false("mlp_bias", "the library's feed-forward layers have no biases");
          const bool biases = config.boolean("attention_bias", false);
          Architecture model = detail::dense_architecture(config, {.positions = 2048}, biases ? "Biases" : "none");
          const Index width = model["Width"], heads = model.layers.front()["Heads"];
          if (width % heads != 0) {
            config.refuse("num_attention_heads", std::to_string(heads),
                          "a divisor of hidden_size, " + std::to_string(width) + ", as the family's code requires");
          }
          return model;
        },
    .parts = detail::llama_parts,
    .head = "lm_head.weight",
    .stores_tied_head = false,
    .config =
        [](const Architecture& model, const std::string& type) {
          auto config = detail::dense_config(model, type);
          const LayerSpec attention = detail::first_layer(model, "Attention");
          const OptionSpec* biases = attention.find("the biases");
          config.flag("attention_bias", biases != nullptr && biases->spelling == "Biases").flag("mlp_bias", false);
          config.text("model_type", "llama").raw("architectures", "[\"LlamaForCausalLM\"]");
          return config.finish();
        },
    .base = "model.",
    .ignored_suffix = detail::rotary_frequencies,
};

inline constexpr Family mistral{
    .name = "mistral",
    .recognises = [](const Config& config) { return config.is_text("model_type", "mistral"); },
    .architecture =
        [](const Config& config) {
          return detail::dense_architecture(
              config,
              {.windows = detail::Windows::throughout, .positions = 1 << 17, .key_value_heads = 8, .window = 4096},
              "none");
        },
    .parts = detail::llama_parts,
    .head = "lm_head.weight",
    .stores_tied_head = false,
    .config =
        [](const Architecture& model, const std::string& type) {
          auto config = detail::dense_config(model, type);
          config.add("sliding_window", detail::first_layer(model, "Attention")["Context"]);
          config.text("model_type", "mistral").raw("architectures", "[\"MistralForCausalLM\"]");
          return config.finish();
        },
    .base = "model.",
    .ignored_suffix = detail::rotary_frequencies,
};

inline constexpr Family qwen2{
    .name = "qwen2",
    .recognises = [](const Config& config) { return config.is_text("model_type", "qwen2"); },
    .architecture =
        [](const Config& config) {
          return detail::dense_architecture(
              config,
              {.windows = detail::Windows::by_layer, .positions = 1 << 15, .key_value_heads = 32, .window = 4096},
              "InputBiases");
        },
    .parts = detail::llama_parts,
    .head = "lm_head.weight",
    .stores_tied_head = false,
    .config =
        [](const Architecture& model, const std::string& type) {
          auto config = detail::dense_config(model, type);
          detail::add_windows(config, model);
          config.text("model_type", "qwen2").raw("architectures", "[\"Qwen2ForCausalLM\"]");
          return config.finish();
        },
    .base = "model.",
    .ignored_suffix = detail::rotary_frequencies,
};

}  // namespace moe_mamba::inline v0_2::families
