#pragma once

#include <string>

#include "moe_mamba/language/composition.hpp"
#include "moe_mamba/language/packing.hpp"
#include "moe_mamba/model/token_model.hpp"

namespace moe_mamba::inline v0_2 {

namespace detail {

template <class Model, class... Arguments>
consteval bool check_language_model() {
  check_integer_option<Model, Vocabulary, 1, 1 << 28, Arguments...>();
  check<OneOf<Model, (0 + ... + int(is_one_of<Arguments, TiedHead, Head>))>>();
  check<OptionGivenOnce<Model, UnitFanIn, (0 + ... + int(std::is_same_v<Arguments, UnitFanIn>))>>();
  constexpr bool takes_real_numbers =
      (false || ... || (is_integer_option<Inputs, Arguments> || is_integer_option<Outputs, Arguments>));
  static_assert(!takes_real_numbers,
                "LanguageModel takes Vocabulary<V>, not Inputs<I> or Outputs<O>; a model of real-valued series is a "
                "SequenceModel");
  if constexpr (!takes_real_numbers) {
    check<ModelNeeds<Model, Vocabulary<256>, times_given<Vocabulary, Arguments...>>>();
  }
  return check_model<Model, Arguments...>();
}

}  // namespace detail

/// A model over token ids: embedding, body, norm, head. Options, in any order: Vocabulary<V> and Width<D> (required),
/// PreNorm<RmsNorm<>>, FinalNorm<RmsNorm<>>, TiedHead (or Head, an untied head), SumAuxiliaryLosses (or
/// AverageAuxiliaryLosses), UnitFanIn (none: embedding and head start normal, of standard deviation 0.02). Everything
/// else is the body, in the given order (see language/composition.hpp).
///
/// Parameters, in this order: embedding.weight (V, D); layers.<i>.norm.… and layers.<i>.mixer.… for each layer,
/// numbered across all repeats; norm_f.…; lm_head.weight (V, D) with Head.
template <class... Arguments>
struct LanguageModel
    : detail::TokenModel<detail::ModelParts<LanguageModel<Arguments...>, Arguments...>,
                         detail::option_value<Vocabulary, 1, Arguments...>(), !detail::is_one_of<Head, Arguments...>,
                         detail::is_one_of<UnitFanIn, Arguments...>> {
  static_assert(detail::check_language_model<LanguageModel, Arguments...>());

  using Parts = detail::ModelParts<LanguageModel, Arguments...>;

  /// The spelling of the first layer that does not support packed sequences; "" if all do.
  static std::string layer_without_packing() {
    return detail::LayerWithoutPacking<Parts::width>::template among<Arguments...>();
  }
};

}  // namespace moe_mamba::inline v0_2
