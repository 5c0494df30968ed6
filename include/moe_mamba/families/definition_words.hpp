#pragma once

#include <string>

#include "moe_mamba/families/layer_words.hpp"
#include "moe_mamba/layers/attention.hpp"
#include "moe_mamba/layers/mamba.hpp"
#include "moe_mamba/layers/mlp.hpp"
#include "moe_mamba/layers/moe.hpp"
#include "moe_mamba/layers/norm.hpp"
#include "moe_mamba/layers/parallel.hpp"
#include "moe_mamba/model/composition.hpp"
#include "moe_mamba/model/language_model.hpp"

/// A definition, which is a type, as words. A new layer of the library gets an overload of layer_words() here.
namespace moe_mamba::families {

/// A type as a value.
template <class T>
struct Of {};

template <class T>
NormWords norm_words(Of<T>) {
  return {.kind = "a norm that no family has"};
}
template <class... Options>
NormWords norm_words(Of<RmsNorm<Options...>>) {
  using Norm = RmsNorm<Options...>;
  return {"RmsNorm", {Norm::epsilon.numerator, Norm::epsilon.denominator}, Norm::gain};
}
template <class... Options>
NormWords norm_words(Of<LayerNorm<Options...>>) {
  return {"LayerNorm", {LayerNorm<Options...>::epsilon.numerator, LayerNorm<Options...>::epsilon.denominator}};
}
inline NormWords norm_words(Of<NoNorm>) { return {.kind = "NoNorm"}; }

template <class T>
std::string activation_name(Of<T>) {
  return "an activation that no family has";
}
inline std::string activation_name(Of<Relu>) { return "Relu"; }
inline std::string activation_name(Of<SquaredRelu>) { return "SquaredRelu"; }
inline std::string activation_name(Of<Gelu>) { return "Gelu"; }
inline std::string activation_name(Of<Silu>) { return "Silu"; }
inline std::string activation_name(Of<SwiGlu>) { return "SwiGlu"; }
inline std::string activation_name(Of<GeGlu>) { return "GeGlu"; }

template <class T>
LayerWords layer_words(Of<T>, Index /*width*/) {
  return {"a layer that no family has", {}};
}
template <class... Options>
LayerWords layer_words(Of<Mamba<Options...>>, Index width) {
  using namespace moe_mamba::detail;
  return MambaWords{.width = width,
                    .state = option_value<State, 16, Options...>(),
                    .convolution = option_value<Convolution, 4, Options...>(),
                    .expand = option_value<Expand, 2, Options...>(),
                    .step_rank = option_value<StepRank, 0, Options...>(),
                    .inner_norm = norm_words(Of<inner_norm_of<Options...>>{}),
                    .projection_bias = is_one_of<ProjectionBias, Options...>,
                    .convolution_bias = !is_one_of<NoConvolutionBias, Options...>}
      .layer();
}
template <class... Options>
LayerWords layer_words(Of<Attention<Options...>>, Index width) {
  using namespace moe_mamba::detail;
  constexpr bool no_positions = is_one_of<NoPositions, Options...>;
  return AttentionWords{.width = width,
                        .heads = option_value<Heads, 1, Options...>(),
                        .context = option_value<Context, 1, Options...>(),
                        .key_value_heads = option_value<KeyValueHeads, 0, Options...>(),
                        .head_width = option_value<HeadWidth, 0, Options...>(),
                        .rotary_base = no_positions ? 0 : option_value<Rotary, 10'000, Options...>(),
                        .rotary_width = option_value<RotaryWidth, 0, Options...>(),
                        .biases = is_one_of<Biases, Options...>        ? "Biases"
                                  : is_one_of<InputBiases, Options...> ? "InputBiases"
                                                                       : "none"}
      .layer();
}
template <class... Options>
LayerWords layer_words(Of<Mlp<Options...>>, Index width) {
  using namespace moe_mamba::detail;
  return MlpWords{.width = width,
                  .hidden = option_value<Hidden, 0, Options...>(),
                  .activation = activation_name(Of<activation_of<Options...>>{})}
      .layer();
}
template <class... Options>
LayerWords layer_words(Of<Moe<Options...>>, Index width) {
  using namespace moe_mamba::detail;
  constexpr Ratio capacity = option_ratio<Capacity, Options...>({0, 1});
  return MoeWords{.width = width,
                  .experts = option_value<Experts, 1, Options...>(),
                  .top_k = option_value<TopK, 1, Options...>(),
                  .hidden = option_value<Hidden, 0, Options...>(),
                  .shared_experts = option_value<SharedExperts, 0, Options...>(),
                  .activation = activation_name(Of<activation_of<Options...>>{}),
                  .order = is_one_of<TopKThenSoftmax, Options...>   ? "TopKThenSoftmax"
                           : is_one_of<SigmoidThenTopK, Options...> ? "SigmoidThenTopK"
                                                                    : "SoftmaxThenTopK",
                  .router_bias = is_one_of<RouterBias, Options...>,
                  .capacity = {capacity.numerator, capacity.denominator}}
      .layer();
}

namespace detail {

/// Adds the items of a body to the layers.
struct BodyReader {
  Architecture& model;
  Index width;
  NormWords norm;

  template <class Item>
  void add(Of<Item> item) {
    if constexpr (moe_mamba::detail::is_model_option<Item>) {
      return;
    } else if constexpr (NormDefinition<Item>) {
      model.layers.push_back({"a norm of the stream", {}});
    } else {
      add_layer(layer_words(item, width), norm);
    }
  }
  template <class Norm, class Layer>
  void add(Of<Residual<Norm, Layer>>) {
    add_layer(layer_words(Of<Layer>{}, width), norm_words(Of<Norm>{}));
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
  void add_layer(LayerWords layer, const NormWords& in_front) {
    layer.norm = pre_norm(in_front);
    model.layers.push_back(std::move(layer));
  }
};

}  // namespace detail

/// What a definition says.
template <class... Arguments>
Architecture architecture_of(Of<LanguageModel<Arguments...>>) {
  using Parts = typename LanguageModel<Arguments...>::Parts;
  Architecture model =
      language_model(LanguageModel<Arguments...>::vocabulary, Parts::width, LanguageModel<Arguments...>::tied_head,
                     norm_words(Of<typename Parts::FinalNormDefinition>{}));
  detail::BodyReader reader{model, Parts::width, norm_words(Of<typename Parts::PreNormDefinition>{})};
  (reader.add(Of<Arguments>{}), ...);
  return model;
}

}  // namespace moe_mamba::families
