#pragma once

#include <type_traits>

#include "moe_mamba/language/definition.hpp"
#include "moe_mamba/language/norm.hpp"
#include "moe_mamba/language/options.hpp"
#include "moe_mamba/layers/mamba.hpp"

/// Mamba<...>: its options, their checks, and the resulting layer.
namespace moe_mamba::inline v0_2 {

namespace detail {

template <class Layer, class Option>
struct MambaTakes {
  static_assert(is_integer_option<State, Option> || is_integer_option<Convolution, Option> ||
                    is_integer_option<Expand, Option> || is_integer_option<StepRank, Option> ||
                    is_norm_option<InnerNorm, Option> || is_one_of<Option, ProjectionBias, NoConvolutionBias>,
                "Mamba takes only the options State<N>, Convolution<K>, Expand<F>, StepRank<R>, InnerNorm<Norm>, "
                "ProjectionBias and NoConvolutionBias: MambaTakes<layer, option>");
};

template <class T>
struct IsInnerNorm {
  static constexpr bool value = is_norm_option<InnerNorm, T>;
};

template <class Layer, class Norm>
struct MambaInnerNorm {
  static_assert(NormDefinition<Norm>,
                "Mamba: InnerNorm takes a norm: RmsNorm<>, LayerNorm<>, NoNorm or your own with is_norm and a member "
                "template Layer<Width>: MambaInnerNorm<layer, norm given>");
};

template <class... Options>
using inner_norm_of = typename FirstMatch<IsInnerNorm, InnerNorm<NoNorm>, Options...>::type::norm;

template <class Layer, class... Options>
consteval bool check_mamba() {
  check<MambaTakes<Layer, Options>...>();
  check_integer_option<Layer, State, 1, 4096, Options...>();
  check_integer_option<Layer, Convolution, 1, 64, Options...>();
  check_integer_option<Layer, Expand, 1, 64, Options...>();
  check_integer_option<Layer, StepRank, 1, 1 << 20, Options...>();
  check<MambaInnerNorm<Layer, inner_norm_of<Options...>>>();
  check<OptionGivenOnce<Layer, InnerNorm<inner_norm_of<Options...>>,
                        (0 + ... + int(is_norm_option<InnerNorm, Options>))>>();
  check<OptionGivenOnce<Layer, ProjectionBias, (0 + ... + int(std::is_same_v<Options, ProjectionBias>))>>();
  check<OptionGivenOnce<Layer, NoConvolutionBias, (0 + ... + int(std::is_same_v<Options, NoConvolutionBias>))>>();
  return true;
}

template <class T>
constexpr void set(MambaOptions&, std::type_identity<T>) {}
template <int N>
constexpr void set(MambaOptions& options, std::type_identity<State<N>>) {
  options.states = N;
}
template <int N>
constexpr void set(MambaOptions& options, std::type_identity<Convolution<N>>) {
  options.taps = N;
}
template <int N>
constexpr void set(MambaOptions& options, std::type_identity<Expand<N>>) {
  options.expand = N;
}
template <int N>
constexpr void set(MambaOptions& options, std::type_identity<StepRank<N>>) {
  options.step_rank = N;
}
constexpr void set(MambaOptions& options, std::type_identity<ProjectionBias>) { options.projection_bias = true; }
constexpr void set(MambaOptions& options, std::type_identity<NoConvolutionBias>) { options.convolution_bias = false; }

}  // namespace detail

/// The Mamba block. Options: State<16>, Convolution<4>, Expand<2>, StepRank<width / 16, rounded up>, InnerNorm<NoNorm>;
/// ProjectionBias and NoConvolutionBias (off).
template <class... Options>
struct Mamba {
  static_assert(detail::check_mamba<Mamba, Options...>());

  static constexpr MambaOptions options = [] {
    MambaOptions all;
    (detail::set(all, std::type_identity<Options>{}), ...);
    return all;
  }();
  using inner_norm = detail::norm_or_none<detail::inner_norm_of<Options...>>;

  template <int W>
  using Layer =
      MambaLayer<W, options.of_width(W), typename detail::CheckedNorm<inner_norm, options.of_width(W).states>::type>;
};

}  // namespace moe_mamba::inline v0_2
