#pragma once

#include <type_traits>

#include "moe_mamba/language/activation.hpp"
#include "moe_mamba/language/options.hpp"
#include "moe_mamba/layers/moe.hpp"

/// Moe<...>: its options, their checks, and the resulting layer.
namespace moe_mamba::inline v0_2 {

namespace detail {

template <class Layer, class Option>
struct MoeTakes {
  static_assert(
      is_integer_option<Experts, Option> || is_integer_option<TopK, Option> || is_integer_option<Hidden, Option> ||
          is_integer_option<SharedExperts, Option> || is_ratio_option<Capacity, Option> ||
          is_ratio_option<BalanceLoss, Option> || is_ratio_option<ZLoss, Option> ||
          is_ratio_option<GateScale, Option> ||
          is_one_of<Option, SoftmaxThenTopK, TopKThenSoftmax, SigmoidThenTopK, NormalisedGates, RouterBias,
                    SelectionBias> ||
          ActivationType<Option>,
      "Moe takes only the options Experts<N>, TopK<K>, Hidden<H>, SharedExperts<N>, Capacity<n, d>, BalanceLoss<n, d>, "
      "ZLoss<n, d>, GateScale<n, d>, RouterBias, SelectionBias, NormalisedGates, SoftmaxThenTopK, TopKThenSoftmax or "
      "SigmoidThenTopK, and an activation (Relu, SquaredRelu, Gelu, Silu, SwiGlu, GeGlu or your own with gated, value "
      "and derivative): MoeTakes<layer, option>");
};

template <class Layer, int Times>
struct MoeNeedsExperts {
  static_assert(Times >= 1, "Moe needs the option Experts<N> with N of 1 or more: MoeNeedsExperts<layer, times given>");
};

template <class Layer, class Chosen, class All>
struct MoeTopK {
  static_assert(Chosen::value <= All::value, "Moe: TopK must be from 1 to Experts: MoeTopK<layer, TopK, Experts>");
};

template <class Layer, class Router>
struct TopOneNotRenormalised {
  static_assert(
      !std::is_same_v<Router, TopKThenSoftmax>,
      "Moe: with TopK<1> a softmax over the single selected expert is always 1 and the router gets no gradient; "
      "allowed: SoftmaxThenTopK or SigmoidThenTopK, or TopK of 2 or more");
};

template <class Layer, bool OfSigmoids>
struct NormalisedSigmoids {
  static_assert(OfSigmoids,
                "Moe: NormalisedGates divides the gates of SigmoidThenTopK by their sum, and needs that option; "
                "probabilities divided by their sum are TopKThenSoftmax");
};

template <class Layer, int K>
struct TopOneNotNormalised {
  static_assert(
      K != 1,
      "Moe: with TopK<1> a single gate divided by itself is always 1 and the router gets no gradient; allowed: "
      "SigmoidThenTopK without NormalisedGates, or TopK of 2 or more");
};

template <class Layer, int Times>
struct OneGateOrder {
  static_assert(
      Times <= 1,
      "Moe: SoftmaxThenTopK, TopKThenSoftmax and SigmoidThenTopK exclude each other, and each may be given at most "
      "once");
};

template <class Layer, class... Options>
consteval bool check_moe() {
  check<MoeTakes<Layer, Options>...>();
  check<MoeNeedsExperts<Layer, (0 + ... + int(is_integer_option<Experts, Options>))>>();
  check<OneActivation<Layer, (0 + ... + int(ActivationType<Options>))>>();
  constexpr bool experts_are_right = check_integer_option<Layer, Experts, 1, 1 << 16, Options...>();
  constexpr bool top_k_is_right = check_integer_option<Layer, TopK, 1, 1 << 16, Options...>();
  check_integer_option<Layer, Hidden, 1, 1 << 24, Options...>();
  check_integer_option<Layer, SharedExperts, 0, 1 << 10, Options...>();
  constexpr int top_k = option_value<TopK, 1, Options...>();
  constexpr int experts = option_value<Experts, 0, Options...>();
  if constexpr (experts_are_right && top_k_is_right && experts > 0) {
    check<MoeTopK<Layer, TopK<top_k>, Experts<experts>>>();
  }
  if constexpr (top_k == 1) check<TopOneNotRenormalised<Layer, Options>...>();
  check<OneGateOrder<Layer, (0 + ... + int(is_one_of<Options, SoftmaxThenTopK, TopKThenSoftmax, SigmoidThenTopK>))>>();
  check<OptionGivenOnce<Layer, RouterBias, (0 + ... + int(std::is_same_v<Options, RouterBias>))>>();
  check<OptionGivenOnce<Layer, SelectionBias, (0 + ... + int(std::is_same_v<Options, SelectionBias>))>>();
  check<OptionGivenOnce<Layer, NormalisedGates, (0 + ... + int(std::is_same_v<Options, NormalisedGates>))>>();
  if constexpr (is_one_of<NormalisedGates, Options...>) {
    constexpr bool of_sigmoids = is_one_of<SigmoidThenTopK, Options...>;
    check<NormalisedSigmoids<Layer, of_sigmoids>>();
    if constexpr (of_sigmoids) check<TopOneNotNormalised<Layer, top_k>>();
  }
  check_ratio_option<Layer, GateScale, 1, Options...>();
  check_ratio_option<Layer, BalanceLoss, 0, Options...>();
  check_ratio_option<Layer, ZLoss, 0, Options...>();
  check_ratio_option<Layer, Capacity, 1, Options...>();
  return true;
}

template <class T>
constexpr void set(MoeOptions&, std::type_identity<T>) {}
template <int N>
constexpr void set(MoeOptions& options, std::type_identity<Experts<N>>) {
  options.experts = N;
}
template <int N>
constexpr void set(MoeOptions& options, std::type_identity<TopK<N>>) {
  options.top_k = N;
}
template <int N>
constexpr void set(MoeOptions& options, std::type_identity<Hidden<N>>) {
  options.hidden = N;
}
template <int N>
constexpr void set(MoeOptions& options, std::type_identity<SharedExperts<N>>) {
  options.shared_experts = N;
}
template <int N, int D>
constexpr void set(MoeOptions& options, std::type_identity<Capacity<N, D>>) {
  options.capacity = {N, D};
}
template <int N, int D>
constexpr void set(MoeOptions& options, std::type_identity<BalanceLoss<N, D>>) {
  options.balance = {N, D};
}
template <int N, int D>
constexpr void set(MoeOptions& options, std::type_identity<ZLoss<N, D>>) {
  options.z = {N, D};
}
template <int N, int D>
constexpr void set(MoeOptions& options, std::type_identity<GateScale<N, D>>) {
  options.gate_scale = {N, D};
}
constexpr void set(MoeOptions& options, std::type_identity<TopKThenSoftmax>) {
  options.order = GateOrder::top_k_then_softmax;
}
constexpr void set(MoeOptions& options, std::type_identity<SigmoidThenTopK>) {
  options.order = GateOrder::sigmoid_then_top_k;
}
constexpr void set(MoeOptions& options, std::type_identity<NormalisedGates>) { options.normalised_gates = true; }
constexpr void set(MoeOptions& options, std::type_identity<RouterBias>) { options.router_bias = true; }
constexpr void set(MoeOptions& options, std::type_identity<SelectionBias>) { options.selection_bias = true; }

}  // namespace detail

/// A mixture of experts. Options: Experts<N> (required), TopK<1>, Hidden<4 · width>, SharedExperts<0>, an
/// activation (Relu), SoftmaxThenTopK (or TopKThenSoftmax, SigmoidThenTopK), NormalisedGates (with SigmoidThenTopK; not
/// normalised), GateScale<1, 1>, RouterBias (none), SelectionBias (none), Capacity<n, d> (none: dropless),
/// BalanceLoss<1, 100>, ZLoss<0, 1>.
template <class... Options>
struct Moe {
  static_assert(detail::check_moe<Moe, Options...>());

  static constexpr MoeOptions options = [] {
    MoeOptions all;
    (detail::set(all, std::type_identity<Options>{}), ...);
    return all;
  }();
  using activation = detail::activation_of<Options...>;

  template <int W>
  using Layer = MoeLayer<W, options.of_width(W), activation>;
};

}  // namespace moe_mamba::inline v0_2
