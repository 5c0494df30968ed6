#pragma once

#include <string>
#include <vector>

#include "moe_mamba/families/config.hpp"
#include "moe_mamba/families/layer_spec.hpp"

/// The attention fields of config.json, as in transformers: positions, windows, heads.
namespace moe_mamba::inline v0_2::families::detail {

/// Rotary positions: `rope_parameters` (transformers 5 and later), `rope_scaling` (before), or `rope_theta` by itself.
/// The former two may have an object per kind of layer with the base. All bases given must agree. A head is rotated as a
/// whole: `partial_rotary_factor`, in any of these places or beside them, must be 1.
inline OptionSpec rotary_option(const Config& config, Index otherwise) {
  constexpr Index highest = 1 << 30;
  Index base = 0;
  OptionSpec option;
  const auto read = [&](const Config& from) {
    const Index here = from.whole_number("rope_theta", 2, highest);
    if (base != 0 && here != base) {
      from.refuse("rope_theta", std::to_string(here), std::to_string(base) + ", as in " + option.field);
    }
    if (base == 0) option = from.from(integer("Rotary", here, 10'000), "rope_theta");
    base = here;
  };
  const auto check_factor = [](const Config& from) {
    if (from.has("partial_rotary_factor")) (void)from.whole_number("partial_rotary_factor", 1, 1);
  };
  const auto check_scaling = [&](const Config& rotary) {
    for (const char* kind : {"rope_type", "type"}) rotary.require_text(kind, "default");
    check_factor(rotary);
  };
  check_factor(config);
  constexpr const char* kinds_of_layers[] = {"full_attention", "sliding_attention"};
  for (const char* name : {"rope_parameters", "rope_scaling"}) {
    const Config inner = config.inside(name);
    inner.require_no_object_but(kinds_of_layers);
    check_scaling(inner);
    if (inner.has("rope_theta")) read(inner);
    for (const char* kind : kinds_of_layers) {
      if (!inner.has(kind)) continue;
      const Config of_kind = inner.inside(kind);
      of_kind.require_no_object_but({});
      check_scaling(of_kind);
      read(of_kind);
    }
  }
  if (config.has("rope_theta")) read(config);
  return base != 0 ? option : config.from(integer("Rotary", otherwise, 10'000), "rope_theta");
}

/// The meaning of `sliding_window` for a family: no such field, the window of all layers, or that of some layers, if
/// `use_sliding_window` is set, selected by `layer_types` or `max_window_layers`.
enum class Windows { none, throughout, by_layer };

/// The defaults of a family's code for missing fields.
struct AttentionDefaults {
  Windows windows = Windows::none;
  Index positions = 0;        // max_position_embeddings
  Index key_value_heads = 0;  // 0: as many as heads
  Index window = 0;           // sliding_window; 0: none
};

/// For each layer, whether it has the window `sliding_window`; the others attend to the whole sequence.
inline std::vector<bool> windowed_layers(const Config& config, const AttentionDefaults& defaults) {
  const Windows windows = defaults.windows;
  const Index layers = config.integer("num_hidden_layers", 1, 4096);
  std::vector<bool> windowed(static_cast<std::size_t>(layers), false);
  if (windows == Windows::none) {
    config.require_none("sliding_window", "the family has no windows");
    return windowed;
  }
  const bool is_by_layer = windows == Windows::by_layer;
  const bool names_window = config.has("sliding_window") || (!config.names("sliding_window") && defaults.window != 0);
  const bool has_window = names_window && (!is_by_layer || config.boolean("use_sliding_window", false));
  const Index first = !has_window ? layers : is_by_layer ? config.integer("max_window_layers", 0, 1 << 24, 28) : 0;
  for (Index i = first; i < layers; ++i) windowed[static_cast<std::size_t>(i)] = true;
  if (!config.has("layer_types")) return windowed;
  const auto types = config.array("layer_types");
  if (types.size() != windowed.size()) {
    config.refuse("layer_types", config.find("layer_types")->text(),
                  "one element for each of " + std::to_string(layers) + " layers");
  }
  for (std::size_t i = 0; i < types.size(); ++i) {
    const auto is = [&](const char* text) {
      return types[i].kind == JsonValue::Kind::string && types[i].string == text;
    };
    const bool is_window = is("sliding_attention"), may_differ = is_by_layer && has_window;
    if (!(is_window || is("full_attention")) || (!may_differ && is_window != has_window)) {
      config.refuse("layer_types element", types[i].text(),
                    may_differ   ? "\"full_attention\" or \"sliding_attention\""
                    : has_window ? "\"sliding_attention\" for every layer, as there is a sliding_window"
                                 : "\"full_attention\" for every layer, as there is no window");
    }
    windowed[i] = is_window;
  }
  return windowed;
}

/// An attention layer of a config.json. `is_window`: its window is `sliding_window`. `rotary`: its rotary positions, or
/// null for none.
inline LayerSpec attention_layer(const Config& config, Index width, const AttentionDefaults& defaults, bool is_window,
                                 const OptionSpec* rotary, const char* biases) {
  AttentionSpec attention{.width = width, .rotary_base = rotary == nullptr ? 0 : 10'000, .biases = biases};
  attention.heads = config.integer("num_attention_heads", 1, 1024);
  const bool is_left_out = !config.names("num_key_value_heads") && defaults.key_value_heads != 0;
  attention.key_value_heads =
      config.integer("num_key_value_heads", 1, 1024, is_left_out ? defaults.key_value_heads : attention.heads);
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
          "without head_dim a divisor of hidden_size, " + std::to_string(width) + ", with heads of width 256 or less");
    }
    attention.head_width = width / attention.heads;
  }
  if (rotary != nullptr && attention.head_width % 2 != 0) {
    config.refuse(config.has("head_dim") ? "head_dim" : "hidden_size / num_attention_heads",
                  std::to_string(attention.head_width), "an even number, as rotary positions rotate pairs");
  }
  const char* context = is_window ? "sliding_window" : "max_position_embeddings";
  attention.context = config.integer(context, 1, 1 << 24, is_window ? defaults.window : defaults.positions);
  LayerSpec layer = attention.layer();
  config.note(layer, "Heads", "num_attention_heads");
  config.note(layer, "KeyValueHeads", "num_key_value_heads");
  config.note(layer, "HeadWidth", "head_dim");
  config.note(layer, "Context", context);
  config.note(layer, "the biases", "attention_bias");
  for (OptionSpec& option : layer.options) {
    // Without a window the public code attends to the whole sequence: any context gives the same result up to its
    // length.
    if (option.name == "Context") option.any_value = !is_window;
    if (option.name == "Rotary" && rotary != nullptr) option = *rotary;
  }
  return layer;
}

}  // namespace moe_mamba::inline v0_2::families::detail
