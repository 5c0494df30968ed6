#pragma once

#include <string>
#include <vector>

#include "moe_mamba/families/family.hpp"
#include "moe_mamba/families/layer_spec.hpp"

/// Mamba (Gu & Dao 2023) in its two published formats: that of transformers (`state-spaces/mamba-130m-hf` and larger
/// ones) and that of the authors' code (`state-spaces/mamba-130m`), with other configs and one different tensor name.
namespace moe_mamba::inline v0_2::families {

namespace detail {

/// "backbone.layers.0.mixer.A_log" and so on; `embedding` is the name of the embedding.
inline std::vector<TensorPart> backbone_parts(const Parameter& parameter, const char* embedding, const char* also) {
  const std::string_view name = parameter.name.view();
  if (name == "embedding.weight") return {whole(parameter, embedding, also)};
  if (name == "lm_head.weight") return {whole(parameter, "lm_head.weight")};
  return {whole(parameter, "backbone." + std::string(name))};
}

/// The same layer, `count` times.
inline void repeat_layer(const Config& config, Architecture& model, const LayerSpec& layer, const char* count) {
  const Index layers = config.integer(count, 1, 1 << 16);
  model.layers.assign(static_cast<std::size_t>(layers), layer);
  model.depth.field = count;
}

/// Models whose configs have the fields of transformers' Mamba.
inline Architecture mamba_architecture(const Config& config, const NormSpec& inner_norm, const char* inner_epsilon) {
  config.require_silu("hidden_act");
  const NormSpec norm{"RmsNorm", config.epsilon("layer_norm_epsilon", {})};
  MambaSpec mamba;
  mamba.width = config.integer("hidden_size", 1, 1 << 20);
  mamba.state = config.integer("state_size", 1, 4096, 16);
  mamba.convolution = config.integer("conv_kernel", 1, 64, 4);
  // If both are present, the public code uses the inner width and ignores `expand`.
  const char* inner_field = config.has("intermediate_size") ? "intermediate_size" : "expand";
  if (config.has("intermediate_size")) {
    mamba.inner = config.integer("intermediate_size", 1, 1 << 24);
  } else {
    mamba.inner = config.integer("expand", 1, 64, 2) * mamba.width;
  }
  if (!config.is_text("time_step_rank", "auto")) mamba.step_rank = config.integer("time_step_rank", 1, 1 << 20, 0);
  mamba.projection_bias = config.boolean("use_bias", false);
  mamba.convolution_bias = config.boolean("use_conv_bias", true);
  mamba.inner_norm = inner_norm;

  Architecture model = language_model(config.integer("vocab_size", 1, 1 << 28), mamba.width,
                                      config.boolean("tie_word_embeddings", true), norm);
  config.note(model, "Vocabulary", "vocab_size");
  config.note(model, "Width", "hidden_size");
  config.note(model, "the head", "tie_word_embeddings");
  config.note(model, "FinalNorm", "layer_norm_epsilon");
  LayerSpec layer = mamba.layer();
  layer.norm = config.from(pre_norm(norm), "layer_norm_epsilon");
  config.note(layer, "State", "state_size");
  config.note(layer, "Convolution", "conv_kernel");
  config.note(layer, "Expand", inner_field);
  config.note(layer, "StepRank", "time_step_rank");
  config.note(layer, "ProjectionBias", "use_bias");
  config.note(layer, "NoConvolutionBias", "use_conv_bias");
  config.note(layer, "InnerNorm", inner_epsilon);
  repeat_layer(config, model, layer, "num_hidden_layers");
  return model;
}

/// The fields that transformers' Mamba and Falcon-Mamba share.
inline ConfigWriter mamba_config(const Architecture& model, const std::string& type) {
  const LayerSpec layer = model.layers.empty() ? MambaSpec{.width = model["Width"]}.layer() : model.layers.front();
  ConfigWriter config;
  config.add("vocab_size", model["Vocabulary"]).add("hidden_size", model["Width"]);
  config.add("num_hidden_layers", static_cast<Index>(model.layers.size()));
  config.add("state_size", layer["State"]).add("conv_kernel", layer["Convolution"]);
  // If the inner width is given, transformers uses it; it need not be a multiple of the width.
  config.add("expand", layer["Expand"] / model["Width"]);
  config.add("intermediate_size", layer["Expand"]).add("time_step_rank", layer["StepRank"]);
  config.flag("use_bias", layer["ProjectionBias"] != 0).flag("use_conv_bias", layer["NoConvolutionBias"] == 0);
  config.number("layer_norm_epsilon", model.at("FinalNorm").number);
  config.text("hidden_act", "silu").flag("residual_in_fp32", true);
  config.flag("tie_word_embeddings", model.tied_head());
  // The name until transformers 4.55, and the one since.
  config.text("torch_dtype", type).text("dtype", type);
  return config;
}

}  // namespace detail

/// The format of transformers.
inline constexpr Family mamba{
    .name = "mamba",
    .recognises = [](const Config& config) { return config.is_text("model_type", "mamba"); },
    .architecture =
        [](const Config& config) { return detail::mamba_architecture(config, {.kind = "NoNorm"}, "model_type"); },
    .parts =
        [](const Parameter& parameter) {
          return detail::backbone_parts(parameter, "backbone.embeddings.weight", "backbone.embedding.weight");
        },
    .head = "lm_head.weight",
    .stores_tied_head = false,
    .config =
        [](const Architecture& model, const std::string& type) {
          auto config = detail::mamba_config(model, type);
          config.text("model_type", "mamba").raw("architectures", "[\"MambaForCausalLM\"]");
          return config.finish();
        },
    .base = "backbone.",
};

/// The format of the authors' code. Its vocabulary is padded to a multiple; its files store a tied head a second time.
inline constexpr Family mamba_ssm{
    .name = "mamba_ssm",
    // Configs of transformers may have these fields as well, and the family's own have no model_type.
    .recognises =
        [](const Config& config) {
          return !config.has("model_type") && config.has("d_model") && config.has("n_layer");
        },
    .architecture =
        [](const Config& config) {
          const Config inner = config.inside("ssm_cfg");
          inner.require_text("layer", "Mamba1");
          if (config.integer("d_intermediate", 0, 1 << 24, 0) != 0) {
            config.refuse("d_intermediate", config.find("d_intermediate")->text(), "0: Mamba layers only");
          }
          if (config.has("attn_layer_idx") && !config.array("attn_layer_idx").empty()) {
            config.refuse("attn_layer_idx", config.find("attn_layer_idx")->text(), "none: Mamba layers only");
          }
          const NormSpec norm{config.boolean("rms_norm", true) ? "RmsNorm" : "LayerNorm"};
          MambaSpec spec;
          spec.width = config.integer("d_model", 1, 1 << 20);
          spec.state = inner.integer("d_state", 1, 4096, 16);
          spec.convolution = inner.integer("d_conv", 1, 64, 4);
          spec.inner = inner.integer("expand", 1, 64, 2) * spec.width;
          if (!inner.is_text("dt_rank", "auto")) spec.step_rank = inner.integer("dt_rank", 1, 1 << 20, 0);
          spec.projection_bias = inner.boolean("bias", false);
          spec.convolution_bias = inner.boolean("conv_bias", true);
          const Index multiple = config.integer("pad_vocab_size_multiple", 1, 1 << 20, 8);
          const Index vocabulary = config.integer("vocab_size", 1, (1 << 28) - multiple);
          Architecture model = language_model((vocabulary + multiple - 1) / multiple * multiple, spec.width,
                                              config.boolean("tie_embeddings", true), norm);
          config.note(model, "Vocabulary", "vocab_size");
          config.note(model, "Width", "d_model");
          config.note(model, "the head", "tie_embeddings");
          config.note(model, "FinalNorm", "rms_norm");
          LayerSpec layer = spec.layer();
          layer.norm = config.from(pre_norm(norm), "rms_norm");
          inner.note(layer, "State", "d_state");
          inner.note(layer, "Convolution", "d_conv");
          inner.note(layer, "Expand", "expand");
          inner.note(layer, "StepRank", "dt_rank");
          inner.note(layer, "ProjectionBias", "bias");
          inner.note(layer, "NoConvolutionBias", "conv_bias");
          detail::repeat_layer(config, model, layer, "n_layer");
          return model;
        },
    .parts =
        [](const Parameter& parameter) {
          return detail::backbone_parts(parameter, "backbone.embedding.weight", "backbone.embeddings.weight");
        },
    .head = "lm_head.weight",
    .stores_tied_head = true,
    .config =
        [](const Architecture& model, const std::string&) {
          const LayerSpec layer =
              model.layers.empty() ? MambaSpec{.width = model["Width"]}.layer() : model.layers.front();
          ConfigWriter inner, config;
          inner.add("d_state", layer["State"]).add("d_conv", layer["Convolution"]);
          inner.add("expand", layer["Expand"] / model["Width"]);
          inner.add("dt_rank", layer["StepRank"]).flag("bias", layer["ProjectionBias"] != 0);
          inner.flag("conv_bias", layer["NoConvolutionBias"] == 0);
          config.add("d_model", model["Width"]).add("n_layer", static_cast<Index>(model.layers.size()));
          config.add("vocab_size", model["Vocabulary"]).raw("ssm_cfg", inner.finish());
          config.flag("rms_norm", layer.norm.spelling.starts_with("RmsNorm")).flag("residual_in_fp32", true);
          config.flag("fused_add_norm", true).add("pad_vocab_size_multiple", 1);
          config.flag("tie_embeddings", model.tied_head());
          return config.finish();
        },
};

}  // namespace moe_mamba::inline v0_2::families
