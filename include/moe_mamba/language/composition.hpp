#pragma once

#include <algorithm>

#include "moe_mamba/language/definition.hpp"
#include "moe_mamba/language/norm.hpp"
#include "moe_mamba/language/options.hpp"
#include "moe_mamba/model/stage_list.hpp"

/// Composition of layers, and the translation of a definition's body into stages.
///
/// A body is a list of items: a layer is short for Residual<PreNorm, layer>; a norm normalises the residual stream
/// itself; Residual, Repeat and Sequence are items as well. Parallel (language/parallel.hpp) combines two layers into
/// one.
namespace moe_mamba::inline v0_2 {

/// x + Layer(Norm(x)), with a norm other than PreNorm.
template <class Norm, class Layer>
struct Residual {};

/// The items in order; names a group of items.
template <class... Items>
struct Sequence {};

/// The items, repeated Times times. Compile time and code size do not grow with Times.
template <int Times, class... Items>
struct Repeat {};

namespace detail {

template <class Item, int W>
struct BodyItem {
  static_assert(
      LayerDefinition<Item, W>,
      "an item of a model's body must be a layer (Mamba, Attention, Moe, Mlp, Parallel or your own, with a member "
      "template Layer<Width>), a norm, Residual, Repeat or Sequence: BodyItem<item, width>");
};

template <class Norm, class Layer, int W>
struct ResidualTakes {
  static_assert(NormDefinition<Norm>,
                "Residual<Norm, Layer> takes a norm first: RmsNorm<>, LayerNorm<>, NoNorm or your own with is_norm: "
                "ResidualTakes<norm, layer, width>");
  static_assert(!NormDefinition<Norm> || LayerDefinition<Layer, W>,
                "Residual<Norm, Layer> takes a layer second: ResidualTakes<norm, layer, width>");
};

template <int Items>
struct SequenceItems {
  static_assert(Items >= 1, "Sequence<items...> needs at least one item: SequenceItems<items given>");
};

template <int Times, int Items>
struct RepeatTakes {
  static_assert(Times >= 1, "Repeat<Times, items...>: Times must be 1 or more: RepeatTakes<Times, items given>");
  static_assert(Items >= 1, "Repeat<Times, items...> needs at least one item: RepeatTakes<Times, items given>");
};

/// The stage of an item; for a rejected item, a stage that does nothing.
template <class Item, int W, class Norm>
struct StageOf {
  static_assert((check<BodyItem<Item, W>>(), true));
  using type = ResidualStage<W, NoNormLayer<W>, NoLayer>;
};

template <class Item, int W, class Norm>
requires(LayerDefinition<Item, W> && !NormDefinition<Item>) struct StageOf<Item, W, Norm> {
  using type = ResidualStage<W, NormLayer<Norm, W>, typename CheckedLayer<typename Item::template Layer<W>>::type>;
};

template <NormDefinition Item, int W, class Norm>
struct StageOf<Item, W, Norm> {
  using type = NormStage<W, NormLayer<Item, W>>;
};

template <class OwnNorm, class Layer, int W, class Norm>
struct StageOf<Residual<OwnNorm, Layer>, W, Norm> {
  static_assert((check<ResidualTakes<OwnNorm, Layer, W>>(), true));
  using type = ResidualStage<W, NoNormLayer<W>, NoLayer>;
};

template <NormDefinition OwnNorm, class Layer, int W, class Norm>
requires(LayerDefinition<Layer, W>) struct StageOf<Residual<OwnNorm, Layer>, W, Norm> {
  using type = ResidualStage<W, NormLayer<OwnNorm, W>, typename CheckedLayer<typename Layer::template Layer<W>>::type>;
};

template <class Items, int W, class Norm>
struct BodyOf;
template <class... Items, int W, class Norm>
struct BodyOf<Sequence<Items...>, W, Norm> {
  using type = StageList<typename StageOf<Items, W, Norm>::type...>;
};

template <class... Items, int W, class Norm>
struct StageOf<Sequence<Items...>, W, Norm> : BodyOf<Sequence<Items...>, W, Norm> {
  static_assert((check<SequenceItems<sizeof...(Items)>>(), true));
};

template <int Times, class... Items, int W, class Norm>
struct StageOf<Repeat<Times, Items...>, W, Norm> {
  static_assert((check<RepeatTakes<Times, sizeof...(Items)>>(), true));
  using type = RepeatStage<std::max(Times, 1), StageList<typename StageOf<Items, W, Norm>::type...>>;
};

/// Whether T is an option of models rather than an item of a body.
template <class T>
inline constexpr bool is_model_option =
    is_integer_option<Vocabulary, T> || is_integer_option<Width, T> || is_integer_option<Inputs, T> ||
    is_integer_option<Outputs, T> || is_norm_option<PreNorm, T> || is_norm_option<FinalNorm, T> ||
    is_one_of<T, TiedHead, Head, UnitFanIn, SumAuxiliaryLosses, AverageAuxiliaryLosses>;

/// The items of a body among the arguments of a model.
template <class Found, class... Arguments>
struct BodyItems {
  using type = Found;
};
template <class... Found, class First, class... Rest>
struct BodyItems<Sequence<Found...>, First, Rest...>
    : std::conditional_t<is_model_option<First>, BodyItems<Sequence<Found...>, Rest...>,
                         BodyItems<Sequence<Found..., First>, Rest...>> {};

template <class T>
struct IsPreNorm {
  static constexpr bool value = is_norm_option<PreNorm, T>;
};
template <class T>
struct IsFinalNorm {
  static constexpr bool value = is_norm_option<FinalNorm, T>;
};

template <class Model, class Required, int Times>
struct ModelNeeds {
  static_assert(Times >= 1,
                "a required option of a model is missing: ModelNeeds<model, option with an example value, times "
                "given>");
};

template <class Model, int Times>
struct OneOf {
  static_assert(Times <= 1, "mutually exclusive options are given, or one of them twice: OneOf<model, times given>");
};

template <class Model, class Norm>
struct ModelNorm {
  static_assert(
      NormDefinition<Norm>,
      "PreNorm and FinalNorm take a norm: RmsNorm<>, LayerNorm<>, NoNorm or your own with is_norm and a member "
      "template Layer<Width>: ModelNorm<model, norm given>");
};

template <class Model, int Items>
struct ModelBody {
  static_assert(Items >= 1,
                "a model needs a body of at least one layer, such as Mamba<>: ModelBody<model, items given>");
};

/// Whether a model has a width.
template <class Model, class... Arguments>
consteval bool check_width() {
  constexpr int times = times_given<Width, Arguments...>;
  check<ModelNeeds<Model, Width<512>, times>>();
  return check_integer_option<Model, Width, 1, 1 << 20, Arguments...>() && times >= 1;
}

template <class Model, class... Arguments>
consteval bool check_model() {
  check<ModelBody<Model, (0 + ... + int(!is_model_option<Arguments>))>>();
  check<OneOf<Model, (0 + ... + int(is_norm_option<PreNorm, Arguments>))>>();
  check<OneOf<Model, (0 + ... + int(is_norm_option<FinalNorm, Arguments>))>>();
  check<OneOf<Model, (0 + ... + int(is_one_of<Arguments, SumAuxiliaryLosses, AverageAuxiliaryLosses>))>>();
  check<ModelNorm<Model, typename FirstMatch<IsPreNorm, PreNorm<RmsNorm<>>, Arguments...>::type::norm>>();
  check<ModelNorm<Model, typename FirstMatch<IsFinalNorm, FinalNorm<RmsNorm<>>, Arguments...>::type::norm>>();
  return true;
}

/// The common part of language and sequence models: width, body, norms and auxiliary losses.
template <class Model, class... Arguments>
struct ModelParts {
  static_assert(check_model<Model, Arguments...>());

  static constexpr int width = option_value<Width, 1, Arguments...>();
  using PreNormDefinition = norm_or_none<typename FirstMatch<IsPreNorm, PreNorm<RmsNorm<>>, Arguments...>::type::norm>;
  using FinalNormDefinition =
      norm_or_none<typename FirstMatch<IsFinalNorm, FinalNorm<RmsNorm<>>, Arguments...>::type::norm>;

  using Norm = NormLayer<FinalNormDefinition, width>;
  /// Empty if the model has no valid width.
  using Items = std::conditional_t<check_width<Model, Arguments...>(), BodyItems<Sequence<>, Arguments...>,
                                   BodyItems<Sequence<>>>;
  using Body = typename BodyOf<typename Items::type, width, PreNormDefinition>::type;

  /// The factor of each auxiliary loss in the loss.
  static constexpr double auxiliary_weight = is_one_of<AverageAuxiliaryLosses, Arguments...> &&
                                                     Body::auxiliary_count > 0
                                                 ? 1.0 / static_cast<double>(std::max<Index>(Body::auxiliary_count, 1))
                                                 : 1.0;
};

}  // namespace detail
}  // namespace moe_mamba::inline v0_2
