#pragma once

#include <string>
#include <vector>

#include "moe_mamba/families/family.hpp"
#include "moe_mamba/families/layer_spec.hpp"

/// BlackMamba (Anthony et al. 2024, arXiv 2402.01771; github.com/Zyphra/BlackMamba): Mamba layers and top-1 mixtures of
/// experts, selected and weighted by the sigmoid, in the order listed by `mamba_moe_layers`: "r" is a Mamba layer, a
/// digit a mixture of that many experts, "1" a feed-forward layer.
///
/// `swiglu` means that experts are gated. The public code then computes gelu(gate) · up, because its loader never sets
/// the activation, while the paper says SwiGLU. A definition may have either; GeGlu is what the code computes.
namespace moe_mamba::inline v0_2::families {

namespace detail {

/// The tensors of a stack of experts' matrices, one per expert.
inline std::vector<TensorPart> expert_parts(const Parameter& parameter, const std::string& mixer, const char* matrix) {
  return block_parts(parameter, 1,
                     [&](Index expert, Index) { return mixer + "local_experts." + std::to_string(expert) + matrix; });
}

inline LayerSpec black_mamba_layer(const Config& config, const JsonValue& code, Index width, const NormSpec& norm) {
  const std::string text = code.kind == JsonValue::Kind::string ? code.string : "";
  const bool is_digit = text.size() == 1 && text[0] >= '1' && text[0] <= '9';
  if (text != "r" && !is_digit) {
    config.refuse("mamba_moe_layers element", code.text(),
                  "\"r\" for Mamba or a digit from \"1\" to \"9\" for as many experts (not both in one layer)");
  }
  LayerSpec layer;
  const bool gated = config.boolean("swiglu");
  const std::string activation = gated ? "GeGlu" : "Gelu";
  const Index hidden = config.integer("ffn_hidden_size", 1, 1 << 24);
  if (text == "r") {
    MambaSpec mamba{.width = width};
    mamba.state = config.integer("state_size", 1, 4096);
    mamba.convolution = config.integer("conv_dimension", 1, 64);
    mamba.inner = config.integer("expansion_factor", 1, 64) * mamba.width;
    layer = mamba.layer();
    config.note(layer, "State", "state_size");
    config.note(layer, "Convolution", "conv_dimension");
    config.note(layer, "Expand", "expansion_factor");
    config.note(layer, "StepRank", "hidden_size");
  } else if (text == "1") {
    layer = MlpSpec{.width = width, .hidden = hidden, .activation = activation}.layer();
  } else {
    MoeSpec moe{.width = width, .experts = text[0] - '0', .hidden = hidden, .activation = activation};
    moe.order = "SigmoidThenTopK";
    moe.router_bias = true;
    layer = moe.layer();
    config.note(layer, "Experts", "mamba_moe_layers");
  }
  config.note(layer, "Hidden", "ffn_hidden_size");
  config.note(layer, "the activation", "swiglu");
  for (OptionSpec& option : layer.options) {
    if (option.name == "the activation" && gated) option.alternative = "SwiGlu";
  }
  layer.norm = pre_norm(norm);
  return layer;
}

}  // namespace detail

inline constexpr Family black_mamba{
    .name = "black_mamba",
    .recognises = [](const Config& config) { return !config.has("model_type") && config.has("mamba_moe_layers"); },
    .architecture =
        [](const Config& config) {
          config.require_false("add_bias_linear", "the library's experts have no biases");
          const Index width = config.integer("hidden_size", 1, 1 << 20);
          const Fraction epsilon = config.epsilon("layernorm_epsilon", {});
          Architecture model =
              language_model(config.integer("vocab_size", 1, 1 << 28), width, true, {"LayerNorm", epsilon});
          config.note(model, "Vocabulary", "vocab_size");
          config.note(model, "Width", "hidden_size");
          const auto codes = config.array("mamba_moe_layers");
          const Index layers = config.integer("num_layers", 1, 1 << 16);
          if (static_cast<Index>(codes.size()) != layers) {
            config.refuse("num_layers", std::to_string(layers),
                          std::to_string(codes.size()) + ", the length of mamba_moe_layers");
          }
          for (const JsonValue& code : codes) {
            model.layers.push_back(detail::black_mamba_layer(config, code, width, {"RmsNorm", epsilon}));
          }
          model.depth.field = "num_layers";
          return model;
        },
    .parts = [](const Parameter& parameter) -> std::vector<TensorPart> {
      const std::string name(parameter.name.view());
      if (name == "embedding.weight") {
        return {whole(parameter, "embedding.word_embeddings.weight", "embedding.weight")};
      }
      if (name.starts_with("norm_f."))
        return {whole(parameter, with_prefix(name, "norm_f.", "decoder.final_layernorm."))};
      const std::string inside = "decoder." + name;
      const auto up_to = [&](const char* end) { return inside.substr(0, inside.rfind(end)); };
      if (name.ends_with(".experts.up.weight")) {
        return detail::expert_parts(parameter, up_to("experts.up"), ".linear_fc1.weight");
      }
      if (name.ends_with(".experts.down.weight")) {
        return detail::expert_parts(parameter, up_to("experts.down"), ".linear_fc2.weight");
      }
      if (name.ends_with(".mixer.up.weight")) return {whole(parameter, up_to("up.weight") + "linear_fc1.weight")};
      if (name.ends_with(".mixer.down.weight")) return {whole(parameter, up_to("down.weight") + "linear_fc2.weight")};
      return {whole(parameter, inside)};
    },
    .head = "output_layer.weight",
    .stores_tied_head = false,
    .config =
        [](const Architecture& model, const std::string&) {
          ConfigWriter config;
          std::string codes;
          LayerSpec scan = MambaSpec{.width = model["Width"]}.layer(), experts = MoeSpec{.activation = "GeGlu"}.layer();
          for (const LayerSpec& layer : model.layers) {
            const bool is_mamba = layer.name == "Mamba";
            (is_mamba ? scan : experts) = layer;
            const std::string code = is_mamba ? "r" : std::to_string(layer.name == "Mlp" ? 1 : layer["Experts"]);
            codes += (codes.empty() ? "[\"" : ", \"") + code + '"';
          }
          const std::string activation =
              experts.find("the activation") == nullptr ? "" : experts.find("the activation")->spelling;
          config.add("num_layers", static_cast<Index>(model.layers.size())).add("hidden_size", model["Width"]);
          config.add("state_size", scan["State"]).add("vocab_size", model["Vocabulary"]);
          config.add("expansion_factor", scan["Expand"] / model["Width"]).add("conv_dimension", scan["Convolution"]);
          config.raw("mamba_moe_layers", codes + "]").add("ffn_hidden_size", experts["Hidden"]);
          config.flag("add_bias_linear", false).flag("swiglu", activation == "GeGlu" || activation == "SwiGlu");
          config.number("layernorm_epsilon", model.at("FinalNorm").number).add("max_sequence_length", 2048);
          return config.finish();
        },
};

}  // namespace moe_mamba::inline v0_2::families
