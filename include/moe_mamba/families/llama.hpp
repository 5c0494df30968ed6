#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "moe_mamba/families/family.hpp"
#include "moe_mamba/families/layer_words.hpp"

/// Transformers as Llama (Touvron et al. 2023, arXiv 2302.13971) has them, whose layers are attention and a gated
/// feed-forward layer, each with a norm in front: Llama, Mistral (Jiang et al. 2023, arXiv 2310.06825), Qwen2 (Yang et al.
/// 2024, arXiv 2407.10671), and what Mixtral and Jamba have in common with them. A public layer is two of ours.
namespace moe_mamba::families {

namespace detail {

/// A parameter's name: of "layers.7.mixer.q_proj.weight" the public layer 3, its second part, "q_proj.weight".
struct LayerName {
  std::string prefix;  // "model.layers.3.", or empty for a parameter of no layer
  bool second = false;
  std::string rest;  // "norm.weight" is that of the norm in front

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

/// What is in no layer.
inline std::vector<TensorPart> outer_parts(const Parameter& parameter, const char* final_norm) {
  const std::string_view name = parameter.name.view();
  if (name == "embedding.weight") return {whole(parameter, "model.embed_tokens.weight")};
  if (name == "norm_f.weight") return {whole(parameter, final_norm)};
  return {whole(parameter, std::string(name))};
}

/// A gated feed-forward layer: rows of the gate first in our `up`.
inline std::vector<TensorPart> gated_parts(const Parameter& parameter, const LayerName& name, const char* inside) {
  if (name.rest != "up.weight") return {whole(parameter, name.prefix + inside + "down_proj.weight")};
  return block_parts(parameter, 2, [&](Index, Index block) {
    return name.prefix + inside + (block == 0 ? "gate_proj.weight" : "up_proj.weight");
  });
}

/// Where files until 2023 hold the rotary frequencies, which follow from the config.
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

/// What a config.json of these families says of the whole model. Its layers are still missing.
inline Architecture outer_words(const Config& config, const NormWords& norm) {
  config.require_silu("hidden_act");
  Architecture model =
      language_model(config.integer("vocab_size", 1, 1 << 28), config.integer("hidden_size", 1, 1 << 20),
                     config.boolean("tie_word_embeddings", false), norm);
  config.note(model, "Vocabulary", "vocab_size");
  config.note(model, "Width", "hidden_size");
  config.note(model, "the head", "tie_word_embeddings");
  config.note(model, "FinalNorm", "rms_norm_eps");
  model.depth.field = "num_hidden_layers times 2 (a mixer and a feed-forward layer each)";
  return model;
}

/// Rotary positions: `rope_parameters`, as transformers writes them since version 5, `rope_scaling`, as before, or
/// `rope_theta` by itself. Where several say what the base is, they must agree.
inline Word rotary_word(const Config& config, Index otherwise) {
  constexpr Index highest = 1 << 30;
  Index base = 0;
  Word word;
  const auto read = [&](const Config& from) {
    if (!from.has("rope_theta")) return;
    const Index here = from.whole_number("rope_theta", 2, highest);
    if (base != 0 && here != base) {
      from.refuse("rope_theta", std::to_string(here), std::to_string(base) + ", as " + word.field + " has it");
    }
    if (base == 0) word = from.from(integer("Rotary", here, 10'000), "rope_theta");
    base = here;
  };
  for (const char* name : {"rope_parameters", "rope_scaling"}) {
    const Config inner = config.inside(name);
    for (const char* kind : {"rope_type", "type"}) inner.require_text(kind, "default");
    if (inner.has("partial_rotary_factor")) (void)inner.whole_number("partial_rotary_factor", 1, 1);
    read(inner);
  }
  read(config);
  return base != 0 ? word : config.from(integer("Rotary", otherwise, 10'000), "rope_theta");
}

/// What `sliding_window` is to a family: no field of its, one that counts for nothing, or how far attention sees.
enum class Windows { none, unused, sliding };

/// Attention as a config.json has it. `rotary`: its positions, or null for none.
inline LayerWords attention_words(const Config& config, Index width, Windows windows, const Word* rotary,
                                  const char* biases) {
  AttentionWords attention{.width = width, .rotary_base = rotary == nullptr ? 0 : 10'000, .biases = biases};
  attention.heads = config.integer("num_attention_heads", 1, 1024);
  attention.key_value_heads = config.integer("num_key_value_heads", 1, 1024, attention.heads);
  if (attention.heads % attention.key_value_heads != 0) {
    config.refuse("num_key_value_heads", std::to_string(attention.key_value_heads),
                  "a divisor of num_attention_heads, " + std::to_string(attention.heads));
  }
  if (config.has("head_dim")) {
    attention.head_width = config.integer("head_dim", 1, 256);
  } else {
    if (width % attention.heads != 0 || width / attention.heads > 256) {
      config.refuse(
          "num_attention_heads", std::to_string(attention.heads),
          "without head_dim a divisor of hidden_size, " + std::to_string(width) + ", into heads of 256 or less");
    }
    attention.head_width = width / attention.heads;
  }
  if (rotary != nullptr && attention.head_width % 2 != 0) {
    config.refuse(config.has("head_dim") ? "head_dim" : "hidden_size over num_attention_heads",
                  std::to_string(attention.head_width), "an even number, as rotary positions turn pairs");
  }
  if (windows == Windows::none) config.require_none("sliding_window", "the family's code has no windows");
  const bool is_window = windows == Windows::sliding && config.has("sliding_window");
  if (windows != Windows::none && config.has("layer_types")) {
    const char* const only = is_window ? "sliding_attention" : "full_attention";
    for (const JsonValue& type : config.array("layer_types")) {
      if (type.kind == JsonValue::Kind::string && type.string == only) continue;
      config.refuse("layer_types element", type.text(),
                    moe_mamba::detail::in_quotes(only) + " throughout, as sliding_window has it");
    }
  }
  const char* context = is_window ? "sliding_window" : "max_position_embeddings";
  attention.context = config.integer(context, 1, 1 << 24);
  LayerWords layer = attention.layer();
  config.note(layer, "Heads", "num_attention_heads");
  config.note(layer, "KeyValueHeads", "num_key_value_heads");
  config.note(layer, "HeadWidth", "head_dim");
  config.note(layer, "Context", context);
  config.note(layer, "the biases", "attention_bias");
  for (Word& word : layer.words) {
    // Without a window the public code sees all that came before: any context computes the same for as long as it lasts.
    if (word.option == "Context") word.free = !is_window;
    if (word.option == "Rotary" && rotary != nullptr) word = *rotary;
  }
  return layer;
}

/// A feed-forward layer.
inline LayerWords gated_words(const Config& config, Index width) {
  LayerWords layer =
      MlpWords{.width = width, .hidden = config.integer("intermediate_size", 1, 1 << 24), .activation = "SwiGlu"}
          .layer();
  config.note(layer, "Hidden", "intermediate_size");
  return layer;
}

/// The two layers, `num_hidden_layers` times.
inline void repeat_layers(const Config& config, Architecture& model, LayerWords mixer, LayerWords feed_forward,
                          const NormWords& norm) {
  mixer.norm = feed_forward.norm = config.from(pre_norm(norm), "rms_norm_eps");
  const Index layers = config.integer("num_hidden_layers", 1, 4096);
  for (Index i = 0; i < layers; ++i) {
    model.layers.push_back(mixer);
    model.layers.push_back(feed_forward);
  }
}

/// The three families without experts.
inline Architecture dense_architecture(const Config& config, Windows windows, const char* biases) {
  const NormWords norm{"RmsNorm", config.epsilon("rms_norm_eps", {1, 1'000'000})};
  Architecture model = outer_words(config, norm);
  const Index width = model["Width"];
  const Word rotary = rotary_word(config, 10'000);
  repeat_layers(config, model, attention_words(config, width, windows, &rotary, biases), gated_words(config, width),
                norm);
  return model;
}

/// The first layer of that name, or one without words.
inline LayerWords first_layer(const Architecture& model, const char* name) {
  for (const LayerWords& layer : model.layers) {
    if (layer.name == name) return layer;
  }
  return {name, {}};
}

/// The fields that these families share. `hidden` is the layer that has the width between two products.
inline ConfigWriter outer_config(const Architecture& model, const LayerWords& attention, const LayerWords& hidden,
                                 const std::string& type) {
  ConfigWriter config;
  config.add("vocab_size", model["Vocabulary"]).add("hidden_size", model["Width"]);
  config.add("num_hidden_layers", static_cast<Index>(model.layers.size()) / 2);
  config.add("num_attention_heads", attention["Heads"]).add("num_key_value_heads", attention["KeyValueHeads"]);
  config.add("head_dim", attention["HeadWidth"]).add("max_position_embeddings", attention["Context"]);
  config.add("intermediate_size", hidden["Hidden"]).text("hidden_act", "silu");
  config.number("rms_norm_eps", model.at("FinalNorm").number).flag("tie_word_embeddings", model.tied_head());
  // The name until transformers 4.55 and the one since.
  config.text("torch_dtype", type).text("dtype", type);
  return config;
}

/// Rotary positions as they were written until transformers 4 and as they are since.
inline void add_rotary(ConfigWriter& config, const LayerWords& attention) {
  ConfigWriter inner;
  inner.add("rope_theta", attention["Rotary"]).text("rope_type", "default");
  config.add("rope_theta", attention["Rotary"]).raw("rope_parameters", inner.finish());
}

inline ConfigWriter dense_config(const Architecture& model, const std::string& type) {
  const LayerWords attention = first_layer(model, "Attention");
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
          Architecture model = detail::dense_architecture(config, detail::Windows::none, biases ? "Biases" : "none");
          const Index width = model["Width"], heads = model.layers.front()["Heads"];
          if (width % heads != 0) {
            config.refuse(
                "num_attention_heads", std::to_string(heads),
                "a divisor of hidden_size, " + std::to_string(width) + ", which the family's code insists on");
          }
          return model;
        },
    .parts = detail::llama_parts,
    .head = "lm_head.weight",
    .stores_tied_head = false,
    .config =
        [](const Architecture& model, const std::string& type) {
          auto config = detail::dense_config(model, type);
          const LayerWords attention = detail::first_layer(model, "Attention");
          const Word* biases = attention.find("the biases");
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
          if (!config.names("sliding_window")) config.refuse("sliding_window", "missing", "an integer or null");
          return detail::dense_architecture(config, detail::Windows::sliding, "none");
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
          config.require_false("use_sliding_window", "its windows are in some of the layers only");
          return detail::dense_architecture(config, detail::Windows::unused, "InputBiases");
        },
    .parts = detail::llama_parts,
    .head = "lm_head.weight",
    .stores_tied_head = false,
    .config =
        [](const Architecture& model, const std::string& type) {
          auto config = detail::dense_config(model, type);
          config.flag("use_sliding_window", false);
          config.text("model_type", "qwen2").raw("architectures", "[\"Qwen2ForCausalLM\"]");
          return config.finish();
        },
    .base = "model.",
    .ignored_suffix = detail::rotary_frequencies,
};

}  // namespace moe_mamba::families
