#pragma once

#include <string>

#include "moe_mamba/families/layer_spec.hpp"
#include "moe_mamba/language/attention.hpp"
#include "moe_mamba/language/composition.hpp"
#include "moe_mamba/language/language_model.hpp"
#include "moe_mamba/language/mamba.hpp"
#include "moe_mamba/language/mlp.hpp"
#include "moe_mamba/language/moe.hpp"
#include "moe_mamba/language/norm.hpp"
#include "moe_mamba/language/parallel.hpp"

/// A definition, which is a type, as data. A new layer of the library gets an overload of layer_spec() here.
namespace moe_mamba::inline v0_2::families {

/// A type as a value.
template <class T>
struct Of {};

template <class T>
NormSpec norm_spec(Of<T>) {
  return {.kind = "an unsupported norm"};
}
template <class... Options>
NormSpec norm_spec(Of<RmsNorm<Options...>>) {
  constexpr NormOptions norm = RmsNorm<Options...>::options;
  return {"RmsNorm", {norm.epsilon.numerator, norm.epsilon.denominator}, norm.gain};
}
template <class... Options>
NormSpec norm_spec(Of<LayerNorm<Options...>>) {
  constexpr Ratio epsilon = LayerNorm<Options...>::options.epsilon;
  return {"LayerNorm", {epsilon.numerator, epsilon.denominator}};
}
inline NormSpec norm_spec(Of<NoNorm>) { return {.kind = "NoNorm"}; }

template <class T>
std::string activation_name(Of<T>) {
  return "an unsupported activation";
}
inline std::string activation_name(Of<Relu>) { return "Relu"; }
inline std::string activation_name(Of<SquaredRelu>) { return "SquaredRelu"; }
inline std::string activation_name(Of<Gelu>) { return "Gelu"; }
inline std::string activation_name(Of<Silu>) { return "Silu"; }
inline std::string activation_name(Of<SwiGlu>) { return "SwiGlu"; }
inline std::string activation_name(Of<GeGlu>) { return "GeGlu"; }

template <class T>
LayerSpec layer_spec(Of<T>, Index /*width*/) {
  return {"an unsupported layer", {}};
}
template <class... Options>
LayerSpec layer_spec(Of<Mamba<Options...>>, Index width) {
  constexpr MambaOptions options = Mamba<Options...>::options;
  if (options.experts.most() > 0) return {"a Mamba block with experts", {}};
  return MambaSpec{.width = width,
                   .state = options.states,
                   .convolution = options.taps,
                   .inner = options.inner == 0 ? options.expand * width : options.inner,
                   .step_rank = options.step_rank,
                   .inner_norm = norm_spec(Of<typename Mamba<Options...>::inner_norm>{}),
                   .projection_bias = options.projection_bias,
                   .convolution_bias = options.convolution_bias}
      .layer();
}
template <class... Options>
LayerSpec layer_spec(Of<Attention<Options...>>, Index width) {
  constexpr AttentionOptions options = Attention<Options...>::options;
  return AttentionSpec{.width = width,
                       .heads = options.heads,
                       .context = options.context,
                       .key_value_heads = options.key_value_heads,
                       .head_width = options.head_width,
                       .rotary_base = options.positions ? options.rotary_base : 0,
                       .rotary_width = options.rotary_width,
                       .biases = options.biases == AttentionBiases::all     ? "Biases"
                                 : options.biases == AttentionBiases::input ? "InputBiases"
                                                                            : "none"}
      .layer();
}
template <class... Options>
LayerSpec layer_spec(Of<Mlp<Options...>>, Index width) {
  return MlpSpec{.width = width,
                 .hidden = Mlp<Options...>::hidden,
                 .activation = activation_name(Of<typename Mlp<Options...>::activation>{})}
      .layer();
}
template <class... Options>
LayerSpec layer_spec(Of<Moe<Options...>>, Index width) {
  constexpr MoeOptions options = Moe<Options...>::options;
  return MoeSpec{.width = width,
                 .experts = options.experts,
                 .top_k = options.top_k,
                 .hidden = options.hidden,
                 .shared_experts = options.shared_experts,
                 .activation = activation_name(Of<typename Moe<Options...>::activation>{}),
                 .order = options.order == GateOrder::top_k_then_softmax   ? "TopKThenSoftmax"
                          : options.order == GateOrder::sigmoid_then_top_k ? "SigmoidThenTopK"
                                                                           : "SoftmaxThenTopK",
                 .normalised_gates = options.normalised_gates,
                 .gate_scale = {options.gate_scale.numerator, options.gate_scale.denominator},
                 .router_bias = options.router_bias,
                 .selection_bias = options.selection_bias,
                 .capacity = {options.capacity.numerator, options.capacity.denominator},
                 .floor_capacity = options.floor_capacity}
      .layer();
}

namespace detail {

/// Adds the items of a body to the layers.
struct BodyReader {
  Architecture& model;
  Index width;
  NormSpec norm;

  template <class Item>
  void add(Of<Item> item) {
    if constexpr (moe_mamba::detail::is_model_option<Item>) {
      return;
    } else if constexpr (NormDefinition<Item>) {
      model.layers.push_back({"a norm of the residual stream", {}});
    } else {
      add_layer(layer_spec(item, width), norm);
    }
  }
  template <class Norm, class Layer>
  void add(Of<Residual<Norm, Layer>>) {
    add_layer(layer_spec(Of<Layer>{}, width), norm_spec(Of<Norm>{}));
  }
  template <class... Items>
  void add(Of<Sequence<Items...>>) {
    (add(Of<Items>{}), ...);
  }
  template <int Times, class... Items>
  void add(Of<Repeat<Times, Items...>>) {
    for (int time = 0; time < Times; ++time) (add(Of<Items>{}), ...);
  }

 private:
  void add_layer(LayerSpec layer, const NormSpec& norm_before) {
    layer.norm = pre_norm(norm_before);
    model.layers.push_back(std::move(layer));
  }
};

}  // namespace detail

/// The architecture of a definition.
template <class... Arguments>
Architecture architecture_of(Of<LanguageModel<Arguments...>>) {
  using Parts = typename LanguageModel<Arguments...>::Parts;
  Architecture model =
      language_model(LanguageModel<Arguments...>::vocabulary, Parts::width, LanguageModel<Arguments...>::tied_head,
                     norm_spec(Of<typename Parts::FinalNormDefinition>{}));
  detail::BodyReader reader{model, Parts::width, norm_spec(Of<typename Parts::PreNormDefinition>{})};
  (reader.add(Of<Arguments>{}), ...);
  return model;
}

}  // namespace moe_mamba::inline v0_2::families
