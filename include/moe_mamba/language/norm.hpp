#pragma once

#include <type_traits>

#include "moe_mamba/blocks/norm.hpp"
#include "moe_mamba/language/definition.hpp"
#include "moe_mamba/language/options.hpp"

/// RmsNorm<...>, LayerNorm<...> and NoNorm: their options, their checks, and the resulting layers.
namespace moe_mamba::inline v0_2 {

namespace detail {

template <class Norm, class Option, bool TakesNoGain>
struct NormTakes {
  static_assert(is_ratio_option<Epsilon, Option> || (TakesNoGain && std::is_same_v<Option, NoGain>),
                "RmsNorm and LayerNorm take only the option Epsilon<numerator, denominator>, RmsNorm also NoGain: "
                "NormTakes<norm, option, is NoGain allowed>");
};

/// The values of a norm's options, checked.
template <class Norm, bool TakesNoGain, class... Options>
consteval NormOptions norm_options() {
  check<NormTakes<Norm, Options, TakesNoGain>...>();
  if constexpr (TakesNoGain) {
    check<OptionGivenOnce<Norm, NoGain, (0 + ... + int(std::is_same_v<Options, NoGain>))>>();
  }
  check_ratio_option<Norm, Epsilon, 1, Options...>();
  return {option_ratio<Epsilon, Options...>(NormOptions{}.epsilon), !is_one_of<NoGain, Options...>};
}

}  // namespace detail

/// x / sqrt(mean(x²) + epsilon) · gain. Options: Epsilon<1, 100000>; NoGain: without the gain.
template <class... Options>
struct RmsNorm {
  static constexpr bool is_norm = true;
  static constexpr NormOptions options = detail::norm_options<RmsNorm, true, Options...>();
  template <int W>
  using Layer = RmsNormLayer<W, options>;
};

/// (x - mean) / sqrt(variance + epsilon) · gain + bias. Options: Epsilon<1, 100000>.
template <class... Options>
struct LayerNorm {
  static constexpr bool is_norm = true;
  static constexpr NormOptions options = detail::norm_options<LayerNorm, false, Options...>();
  template <int W>
  using Layer = LayerNormLayer<W, options>;
};

/// No norm: the identity.
struct NoNorm {
  static constexpr bool is_norm = true;
  template <int W>
  using Layer = NoNormLayer<W>;
};

namespace detail {

/// The norm, if it is one.
template <class Norm>
using norm_or_none = std::conditional_t<NormDefinition<Norm>, Norm, NoNorm>;

template <class Norm>
struct FinishedNorm {
  static_assert(NormType<Norm>,
                "a norm does not meet the requirements of blocks/layer.hpp: FinishedNorm<norm of a width>");
};

/// The norm, if one of width W can be used.
template <class Norm, int W>
struct CheckedNorm {
  static_assert((check<FinishedNorm<typename Norm::template Layer<W>>>(), true));
  using type = std::conditional_t<NormType<typename Norm::template Layer<W>>, Norm, NoNorm>;
};
template <class Norm, int W>
using NormLayer = typename CheckedNorm<Norm, W>::type::template Layer<W>;

}  // namespace detail

}  // namespace moe_mamba::inline v0_2
