#pragma once

#include <type_traits>

#include "moe_mamba/language/activation.hpp"
#include "moe_mamba/language/options.hpp"
#include "moe_mamba/language/routing.hpp"
#include "moe_mamba/layers/moe.hpp"

/// Moe<...>: its options, their checks, and the resulting layer.
namespace moe_mamba::inline v0_2 {

namespace detail {

template <class Layer, class Option>
struct MoeTakes {
  static_assert(is_integer_option<Experts, Option> || is_integer_option<Hidden, Option> ||
                    is_integer_option<SharedExperts, Option> || is_routing_option<Option> || ActivationType<Option>,
                "Moe takes only the options Experts<N>, TopK<K>, Hidden<H>, SharedExperts<N>, Capacity<n, d>, "
                "FloorCapacity<n, d>, BalanceLoss<n, d>, ZLoss<n, d>, GateScale<n, d>, RouterBias, SelectionBias, "
                "NormalisedGates, JointFanIn, SoftmaxThenTopK, TopKThenSoftmax or SigmoidThenTopK, and an activation "
                "(Relu, SquaredRelu, Gelu, Silu, SwiGlu, GeGlu or your own with "
                "gated, value and derivative): MoeTakes<layer, option>");
};

template <class Layer, int Times>
struct MoeNeedsExperts {
  static_assert(Times >= 1, "Moe needs the option Experts<N> with N of 1 or more: MoeNeedsExperts<layer, times given>");
};

template <class Layer, class... Options>
consteval bool check_moe() {
  check<MoeTakes<Layer, Options>...>();
  check<MoeNeedsExperts<Layer, (0 + ... + int(is_integer_option<Experts, Options>))>>();
  check<OneActivation<Layer, (0 + ... + int(ActivationType<Options>))>>();
  check_integer_option<Layer, Hidden, 1, 1 << 24, Options...>();
  check_integer_option<Layer, SharedExperts, 0, 1 << 10, Options...>();
  constexpr int experts = option_value<Experts, 0, Options...>();
  if constexpr (check_integer_option<Layer, Experts, 1, 1 << 16, Options...>() && experts > 0) {
    check_routing<Layer, Options...>(std::type_identity<Experts<experts>>{});
  } else {
    check_routing<Layer, Options...>();
  }
  return true;
}

template <class T>
constexpr void set(MoeOptions&, std::type_identity<T>) {}
template <int N>
constexpr void set(MoeOptions& options, std::type_identity<Experts<N>>) {
  options.experts = N > 0 ? N : 1;  // a wrong number has been reported
}
template <int N>
constexpr void set(MoeOptions& options, std::type_identity<Hidden<N>>) {
  options.hidden = N;
}
template <int N>
constexpr void set(MoeOptions& options, std::type_identity<SharedExperts<N>>) {
  options.shared_experts = N;
}

}  // namespace detail

/// A mixture of experts. Options: Experts<N> (required), TopK<1>, Hidden<4 · width>, SharedExperts<0>, an
/// activation (Relu), SoftmaxThenTopK (or TopKThenSoftmax, SigmoidThenTopK), NormalisedGates (with SigmoidThenTopK; not
/// normalised), GateScale<1, 1>, RouterBias (none), SelectionBias (none), Capacity<n, d> or
/// FloorCapacity<n, d> (none: dropless), BalanceLoss<1, 100>, ZLoss<0, 1>, JointFanIn (none: initial weights have the
/// fan-in of one expert and are cut at two standard deviations).
template <class... Options>
struct Moe {
  static_assert(detail::check_moe<Moe, Options...>());

  static constexpr MoeOptions options = [] {
    MoeOptions all;
    (detail::set(all, std::type_identity<Options>{}), ...);
    (detail::set_routing(all, std::type_identity<Options>{}), ...);
    return all;
  }();
  using activation = detail::activation_of<Options...>;

  template <int W>
  using Layer = MoeLayer<W, options.of_width(W), activation>;
};

}  // namespace moe_mamba::inline v0_2
