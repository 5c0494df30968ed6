#pragma once

#include <string>
#include <vector>

#include "moe_mamba/families/llama.hpp"

/// Mixtral (Jiang et al. 2024, arXiv 2401.04088): Mistral with mixtures of gated experts as feed-forward layers,
/// weighted by a softmax over the selected experts.
///
/// The published files, and those that transformers writes by default, have one tensor per matrix and expert. In
/// memory, and in files written with save_original_format=False, transformers fuses the experts of a layer into one
/// tensor, with the gates' rows first as in this library.
namespace moe_mamba::inline v0_2::families {

namespace detail {

/// The experts of a layer, with K of them per token.
inline MoeSpec expert_spec(const Config& config, Index width, const char* experts, Index otherwise) {
  MoeSpec moe{.width = width, .activation = gated_activation(config)};
  moe.experts = config.integer(experts, 1, 1 << 16, otherwise);
  moe.top_k = config.integer("num_experts_per_tok", 1, moe.experts, 2);
  moe.hidden = config.integer("intermediate_size", 1, 1 << 24);
  return moe;
}

/// That layer, with the fields that its options come from.
inline LayerSpec moe_layer(const Config& config, const MoeSpec& moe, const char* experts) {
  LayerSpec layer = moe.layer();
  config.note(layer, "Experts", experts);
  config.note(layer, "TopK", "num_experts_per_tok");
  config.note(layer, "Hidden", "intermediate_size");
  config.note(layer, "the activation", "hidden_act");
  return layer;
}

}  // namespace detail

inline constexpr Family mixtral{
    .name = "mixtral",
    .recognises = [](const Config& config) { return config.is_text("model_type", "mixtral"); },
    .architecture =
        [](const Config& config) {
          const NormSpec norm{"RmsNorm", config.epsilon("rms_norm_eps", {})};
          Architecture model = detail::outer_architecture(config, norm);
          const Index width = model["Width"];
          const OptionSpec rotary = detail::rotary_option(config, 1'000'000);
          MoeSpec moe = detail::expert_spec(config, width, "num_local_experts", 8);
          if (moe.top_k == 1) {
            config.refuse("num_experts_per_tok", "1", "2 or more, as the gate of a single selected expert is always 1");
          }
          moe.order = "TopKThenSoftmax";
          detail::add_layers(config, model,
                             {.windows = detail::Windows::throughout, .positions = 1 << 17, .key_value_heads = 8},
                             rotary, "none", detail::moe_layer(config, moe, "num_local_experts"), norm);
          return model;
        },
    .parts = [](const Parameter& parameter) -> std::vector<TensorPart> {
      const detail::LayerName name(parameter);
      const std::string inside = name.prefix + "block_sparse_moe.";
      const auto of_expert = [&](Index expert, const char* matrix) {
        return inside + "experts." + std::to_string(expert) + matrix;
      };
      if (name.rest == "router.weight") {
        return {whole(parameter, inside + "gate.weight", name.prefix + "mlp.gate.weight")};
      }
      if (name.rest == "experts.up.weight") {
        return block_parts(parameter, 2, [&](Index expert, Index block) {
          return of_expert(expert, block == 0 ? ".w1.weight" : ".w3.weight");
        });
      }
      if (name.rest == "experts.down.weight") {
        return block_parts(parameter, 1, [&](Index expert, Index) { return of_expert(expert, ".w2.weight"); });
      }
      return detail::llama_parts(parameter);
    },
    .head = "lm_head.weight",
    .stores_tied_head = false,
    .config =
        [](const Architecture& model, const std::string& type) {
          const LayerSpec attention = detail::first_layer(model, "Attention"), moe = detail::first_layer(model, "Moe");
          auto config = detail::outer_config(model, attention, moe, type);
          detail::add_rotary(config, attention);
          config.add("sliding_window", attention["Context"]);
          config.add("num_local_experts", moe["Experts"]).add("num_experts_per_tok", moe["TopK"]);
          config.text("model_type", "mixtral").raw("architectures", "[\"MixtralForCausalLM\"]");
          return config.finish();
        },
    .other_parts = [](const Parameter& parameter) -> std::vector<TensorPart> {
      const detail::LayerName name(parameter);
      const std::string inside = name.prefix + "mlp.experts.";
      if (name.rest == "experts.up.weight") return {whole(parameter, inside + "gate_up_proj")};
      if (name.rest == "experts.down.weight") return {whole(parameter, inside + "down_proj")};
      return {};
    },
    .base = "model.",
    .ignored_suffix = detail::rotary_frequencies,
};

}  // namespace moe_mamba::inline v0_2::families
