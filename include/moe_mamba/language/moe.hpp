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
          is_ratio_option<FloorCapacity, Option> || is_ratio_option<BalanceLoss, Option> ||
          is_ratio_option<ZLoss, Option> ||
          is_one_of<Option, SoftmaxThenTopK, TopKThenSoftmax, SigmoidThenTopK, RouterBias, JointFanIn> ||
          ActivationType<Option>,
      "Moe takes only the options Experts<N>, TopK<K>, Hidden<H>, SharedExperts<N>, Capacity<n, d>, "
      "FloorCapacity<n, d>, BalanceLoss<n, d>, ZLoss<n, d>, RouterBias, JointFanIn, SoftmaxThenTopK, TopKThenSoftmax "
      "or SigmoidThenTopK, and an activation "
      "(Relu, SquaredRelu, Gelu, Silu, SwiGlu, GeGlu or your own with gated, value and derivative): MoeTakes<layer, "
      "option>");
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

template <class Layer, int Times>
struct OneGateOrder {
  static_assert(
      Times <= 1,
      "Moe: SoftmaxThenTopK, TopKThenSoftmax and SigmoidThenTopK exclude each other, and each may be given at most "
      "once");
};

template <class Layer, int Times>
struct OneCapacity {
  static_assert(Times <= 1,
                "Moe: Capacity and FloorCapacity exclude each other: the places of an expert are rounded up or down");
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
  check<OptionGivenOnce<Layer, JointFanIn, (0 + ... + int(std::is_same_v<Options, JointFanIn>))>>();
  check_ratio_option<Layer, BalanceLoss, 0, Options...>();
  check_ratio_option<Layer, ZLoss, 0, Options...>();
  check_ratio_option<Layer, Capacity, 1, Options...>();
  check_ratio_option<Layer, FloorCapacity, 1, Options...>();
  check<OneCapacity<Layer,
                    int(ratios_given<Capacity, Options...> > 0) + int(ratios_given<FloorCapacity, Options...> > 0)>>();
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
constexpr void set(MoeOptions& options, std::type_identity<FloorCapacity<N, D>>) {
  options.capacity = {N, D};
  options.floor_capacity = true;
}
template <int N, int D>
constexpr void set(MoeOptions& options, std::type_identity<BalanceLoss<N, D>>) {
  options.balance = {N, D};
}
template <int N, int D>
constexpr void set(MoeOptions& options, std::type_identity<ZLoss<N, D>>) {
  options.z = {N, D};
}
constexpr void set(MoeOptions& options, std::type_identity<TopKThenSoftmax>) {
  options.order = GateOrder::top_k_then_softmax;
}
constexpr void set(MoeOptions& options, std::type_identity<SigmoidThenTopK>) {
  options.order = GateOrder::sigmoid_then_top_k;
}
constexpr void set(MoeOptions& options, std::type_identity<RouterBias>) { options.router_bias = true; }
constexpr void set(MoeOptions& options, std::type_identity<JointFanIn>) { options.joint_fan_in = true; }

}  // namespace detail

/// A mixture of experts. Options: Experts<N> (required), TopK<1>, Hidden<4 · width>, SharedExperts<0>, an
/// activation (Relu), SoftmaxThenTopK (or TopKThenSoftmax, SigmoidThenTopK), RouterBias (none), Capacity<n, d> or
/// FloorCapacity<n, d> (none: dropless), BalanceLoss<1, 100>, ZLoss<0, 1>, JointFanIn (none: initial weights have the
/// fan-in of one expert and are cut at two standard deviations).
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
