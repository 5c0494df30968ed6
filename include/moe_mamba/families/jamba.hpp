#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "moe_mamba/families/mixtral.hpp"

/// Jamba (Lieber et al. 2024, arXiv 2403.19887): alternating mixers and gated feed-forward layers. One in
/// `attn_layer_period` mixers is attention without positions, the others are Mamba with norms of step, B and C. One in
/// `expert_layer_period` feed-forward layers is a mixture of experts, weighted by the softmax over all experts.
namespace moe_mamba::inline v0_2::families {

namespace detail {

/// The layers of a kind: those with index % period == offset.
struct Recurring {
  Index period = 1, offset = 0;

  static Recurring read(const Config& config, const char* period, const char* offset, Recurring otherwise) {
    const Index every = config.integer(period, 1, 1 << 16, otherwise.period);
    const Index first = config.integer(offset, 0, 1 << 16, otherwise.offset);
    if (first >= every) {
      config.refuse(offset, std::to_string(first),
                    moe_mamba::detail::range_text<Index>(0, every - 1, "an integer from "));
    }
    return {every, first};
  }
  /// The rule that selects these indices among the first `count`, if there is one.
  static Recurring of(const std::vector<Index>& numbers, Index count) {
    if (numbers.empty()) return {count + 1, count};
    if (numbers.size() == 1) return {std::max(count, Index{1}), numbers[0]};
    const Index period = numbers[1] - numbers[0];
    return {period, numbers[0] % period};
  }
  bool has(Index number) const { return number % period == offset; }
};

/// An optional list of each layer's kind must be consistent with the fields named by `rule`, which give `expected(i)`,
/// as text, for layer i.
template <class Expected>
void require_list(const Config& config, const char* name, Index layers, const std::string& rule, Expected expected) {
  if (!config.has(name)) return;
  const auto list = config.array(name);
  if (list.size() != static_cast<std::size_t>(layers)) {
    config.refuse(name, config.find(name)->text(), "one element for each of " + std::to_string(layers) + " layers");
  }
  for (Index i = 0; i < layers; ++i) {
    const std::string given = list[static_cast<std::size_t>(i)].text(), ours = expected(i);
    if (given != ours) {
      config.refuse(name + (" of layer " + std::to_string(i)), given, ours + ", according to " + rule);
    }
  }
}

inline LayerSpec jamba_mamba_layer(const Config& config, Index width, const NormSpec& norm) {
  MambaSpec mamba{.width = width, .inner_norm = norm};
  mamba.state = config.integer("mamba_d_state", 1, 4096, 16);
  mamba.convolution = config.integer("mamba_d_conv", 1, 64, 4);
  mamba.inner = config.integer("mamba_expand", 1, 64, 2) * width;
  if (!config.is_text("mamba_dt_rank", "auto")) mamba.step_rank = config.integer("mamba_dt_rank", 1, 1 << 20, 0);
  mamba.projection_bias = config.boolean("mamba_proj_bias", false);
  mamba.convolution_bias = config.boolean("mamba_conv_bias", true);
  if (!config.boolean("mamba_inner_layernorms", true)) {
    config.refuse("mamba_inner_layernorms", "false", "true, the only value that the family's code supports");
  }
  LayerSpec layer = mamba.layer();
  config.note(layer, "State", "mamba_d_state");
  config.note(layer, "Convolution", "mamba_d_conv");
  config.note(layer, "Expand", "mamba_expand");
  config.note(layer, "StepRank", "mamba_dt_rank");
  config.note(layer, "InnerNorm", "rms_norm_eps");
  config.note(layer, "ProjectionBias", "mamba_proj_bias");
  config.note(layer, "NoConvolutionBias", "mamba_conv_bias");
  return layer;
}

inline Architecture jamba_architecture(const Config& config) {
  const NormSpec norm{"RmsNorm", config.epsilon("rms_norm_eps", {1, 1'000'000})};
  config.require_silu("hidden_act");  // which the convolutions have as well
  Architecture model = outer_architecture(config, norm);
  const Index width = model["Width"], layers = config.integer("num_hidden_layers", 1, 4096);
  const auto attentions = Recurring::read(config, "attn_layer_period", "attn_layer_offset", {8, 4});
  const auto mixtures = Recurring::read(config, "expert_layer_period", "expert_layer_offset", {2, 1});
  const Index experts = config.integer("num_experts", 1, 1 << 16, 16);
  for (const char* list : {"layer_types", "layers_block_type"}) {
    require_list(config, list, layers, "attn_layer_period and attn_layer_offset",
                 [&](Index i) { return attentions.has(i) ? "\"attention\"" : "\"mamba\""; });
  }
  require_list(config, "layers_num_experts", layers, "expert_layer_period, expert_layer_offset and num_experts",
               [&](Index i) { return std::to_string(mixtures.has(i) ? experts : 1); });
  const AttentionDefaults defaults{.positions = 1 << 18, .key_value_heads = 8};
  (void)windowed_layers(config, defaults);  // none
  // Fields of layer kinds that the model does not have are ignored.
  const auto mixer = [&](Index i) {
    return attentions.has(i) ? attention_layer(config, width, defaults, false, nullptr, "none")
                             : jamba_mamba_layer(config, width, norm);
  };
  const auto feed_forward = [&](Index i) {
    const bool is_mixture = experts > 1 && mixtures.has(i);  // with one expert, the public code has a plain layer
    return is_mixture ? moe_layer(config, expert_spec(config, width, "num_experts", experts), "num_experts")
                      : gated_mlp_layer(config, width);
  };
  for (Index i = 0; i < layers; ++i) {
    model.layers.push_back(mixer(i));
    model.layers.push_back(feed_forward(i));
  }
  for (LayerSpec& layer : model.layers) layer.norm = config.from(pre_norm(norm), "rms_norm_eps");
  return model;
}

inline std::string jamba_config(const Architecture& model, const std::string& type) {
  const Index layers = static_cast<Index>(model.layers.size()) / 2;
  std::vector<Index> attentions, mixtures;
  for (Index i = 0; i < layers; ++i) {
    const auto first = static_cast<std::size_t>(2 * i);
    if (model.layers[first].name == "Attention") attentions.push_back(i);
    if (model.layers[first + 1].name == "Moe") mixtures.push_back(i);
  }
  // Fields of layer kinds that the model does not have still need valid values.
  LayerSpec mamba = first_layer(model, "Mamba"), attention = first_layer(model, "Attention");
  const LayerSpec moe = first_layer(model, "Moe");
  if (mamba.options.empty()) mamba = MambaSpec{.width = model["Width"]}.layer();
  if (attention.options.empty()) attention = AttentionSpec{.context = 1 << 18, .head_width = 1}.layer();
  ConfigWriter config = outer_config(model, attention, moe.options.empty() ? first_layer(model, "Mlp") : moe, type);
  const auto every = Recurring::of(attentions, layers), experts = Recurring::of(mixtures, layers);
  config.add("attn_layer_period", every.period).add("attn_layer_offset", every.offset);
  config.add("expert_layer_period", experts.period).add("expert_layer_offset", experts.offset);
  config.add("num_experts", moe.options.empty() ? 1 : moe["Experts"]);
  config.add("num_experts_per_tok", moe.options.empty() ? 1 : moe["TopK"]);
  config.add("mamba_d_state", mamba["State"]).add("mamba_d_conv", mamba["Convolution"]);
  config.add("mamba_expand", mamba["Expand"] / model["Width"]).add("mamba_dt_rank", mamba["StepRank"]);
  config.flag("mamba_proj_bias", mamba["ProjectionBias"] != 0).flag("mamba_conv_bias", mamba["NoConvolutionBias"] == 0);
  config.text("model_type", "jamba").raw("architectures", "[\"JambaForCausalLM\"]");
  return config.finish();
}

}  // namespace detail

inline constexpr Family jamba{
    .name = "jamba",
    .recognises = [](const Config& config) { return config.is_text("model_type", "jamba"); },
    .architecture = detail::jamba_architecture,
    .parts = [](const Parameter& parameter) -> std::vector<TensorPart> {
      const detail::LayerName name(parameter);
      if (name.prefix.empty()) return detail::outer_parts(parameter, "model.final_layernorm.weight");
      if (name.rest == "norm.weight") {
        return {whole(parameter, name.prefix + (name.second ? "pre_ff_layernorm" : "input_layernorm") + ".weight")};
      }
      if (!name.second) {
        const std::string_view rest = name.rest;
        for (const char* projection : {"q_proj", "k_proj", "v_proj", "o_proj"}) {
          if (rest.starts_with(projection)) return {whole(parameter, name.prefix + "self_attn." + name.rest)};
        }
        for (const char* norm : {"dt_norm", "b_norm", "c_norm"}) {
          if (!rest.starts_with(norm)) continue;
          const std::string public_norm = std::string(rest.substr(0, rest.find('_'))) + "_layernorm";
          return {whole(parameter, name.prefix + "mamba." + with_prefix(rest, norm, public_norm))};
        }
        return {whole(parameter, name.prefix + "mamba." + name.rest)};
      }
      const std::string inside = name.prefix + "feed_forward.";
      const auto of_expert = [&](Index expert, const char* matrix) {
        return inside + "experts." + std::to_string(expert) + matrix;
      };
      if (name.rest == "router.weight") return {whole(parameter, inside + name.rest)};
      if (name.rest == "experts.up.weight") {
        return block_parts(parameter, 2, [&](Index expert, Index block) {
          return of_expert(expert, block == 0 ? ".gate_proj.weight" : ".up_proj.weight");
        });
      }
      if (name.rest == "experts.down.weight") {
        return block_parts(parameter, 1, [&](Index expert, Index) { return of_expert(expert, ".down_proj.weight"); });
      }
      return detail::gated_parts(parameter, name, "feed_forward.");
    },
    .head = "lm_head.weight",
    .stores_tied_head = false,
    .config = detail::jamba_config,
    .other_parts = [](const Parameter& parameter) -> std::vector<TensorPart> {
      const detail::LayerName name(parameter);
      const std::string inside = name.prefix + "feed_forward.experts.";
      if (name.rest == "experts.up.weight") return {whole(parameter, inside + "gate_up_proj")};
      if (name.rest == "experts.down.weight") return {whole(parameter, inside + "down_proj")};
      return {};
    },
    .base = "model.",
};

}  // namespace moe_mamba::inline v0_2::families
