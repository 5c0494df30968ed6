#pragma once

#include <string>

#include "moe_mamba/language/composition.hpp"
#include "moe_mamba/language/packing.hpp"
#include "moe_mamba/model/series_model.hpp"

namespace moe_mamba::inline v0_2 {

namespace detail {

template <class Model, class... Arguments>
consteval bool check_sequence_model() {
  check_integer_option<Model, Inputs, 1, 1 << 20, Arguments...>();
  check_integer_option<Model, Outputs, 1, 1 << 20, Arguments...>();
  constexpr bool takes_tokens =
      (false || ... || (is_integer_option<Vocabulary, Arguments> || is_one_of<Arguments, TiedHead, Head, UnitFanIn>));
  static_assert(!takes_tokens,
                "SequenceModel takes Inputs<I> and Outputs<O>, not Vocabulary<V>, TiedHead, Head or UnitFanIn; a model "
                "over tokens is a LanguageModel");
  if constexpr (!takes_tokens) {
    check<ModelNeeds<Model, Inputs<4>, times_given<Inputs, Arguments...>>>();
    check<ModelNeeds<Model, Outputs<2>, times_given<Outputs, Arguments...>>>();
  }
  return check_model<Model, Arguments...>();
}

}  // namespace detail

/// A model of real-valued series: input map, body, norm, output map; the maps are linear with bias. Options, in any
/// order: Inputs<I>, Outputs<O> and Width<D> (required), PreNorm<RmsNorm<>>, FinalNorm<RmsNorm<>>, SumAuxiliaryLosses
/// (or AverageAuxiliaryLosses). Everything else is the body, in the given order (see language/composition.hpp).
///
/// Parameters, in this order: input.weight (D, I), input.bias (D); layers.<i>.norm.… and layers.<i>.mixer.… for each
/// layer, numbered across all repeats; norm_f.…; output.weight (O, D), output.bias (O).
template <class... Arguments>
struct SequenceModel : detail::SeriesModel<detail::ModelParts<SequenceModel<Arguments...>, Arguments...>,
                                           detail::option_value<Inputs, 1, Arguments...>(),
                                           detail::option_value<Outputs, 1, Arguments...>()> {
  static_assert(detail::check_sequence_model<SequenceModel, Arguments...>());

  using Parts = detail::ModelParts<SequenceModel, Arguments...>;

  /// The spelling of the first layer that does not support packed sequences; "" if all do.
  static std::string layer_without_packing() {
    return detail::LayerWithoutPacking<Parts::width>::template among<Arguments...>();
  }
};

}  // namespace moe_mamba::inline v0_2
