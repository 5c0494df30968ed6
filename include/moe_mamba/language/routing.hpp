#pragma once

#include <type_traits>

#include "moe_mamba/blocks/routing.hpp"
#include "moe_mamba/language/options.hpp"

/// The options of a router, which Moe and the experts of a Mamba block share, and their checks.
namespace moe_mamba::inline v0_2::detail {

template <class Option>
inline constexpr bool is_routing_option =
    is_integer_option<TopK, Option> || is_ratio_option<Capacity, Option> || is_ratio_option<FloorCapacity, Option> ||
    is_ratio_option<BalanceLoss, Option> || is_ratio_option<ZLoss, Option> || is_ratio_option<GateScale, Option> ||
    is_one_of<Option, SoftmaxThenTopK, TopKThenSoftmax, SigmoidThenTopK, NormalisedGates, RouterBias, SelectionBias,
              JointFanIn>;

template <class Layer, class Chosen, class All>
struct TopKOfExperts {
  static_assert(Chosen::value <= All::value,
                "TopK must be from 1 to the number of experts: TopKOfExperts<layer, TopK, experts>");
};

template <class Layer, class Router>
struct TopOneNotRenormalised {
  static_assert(
      !std::is_same_v<Router, TopKThenSoftmax>,
      "with TopK<1> a softmax over the single selected expert is always 1 and the router gets no gradient; "
      "allowed: SoftmaxThenTopK or SigmoidThenTopK, or TopK of 2 or more: TopOneNotRenormalised<layer, order>");
};

template <class Layer, bool OfSigmoids>
struct NormalisedSigmoids {
  static_assert(
      OfSigmoids,
      "NormalisedGates divides the gates of SigmoidThenTopK by their sum, and needs that option; probabilities "
      "divided by their sum are TopKThenSoftmax: NormalisedSigmoids<layer, whether it has SigmoidThenTopK>");
};

template <class Layer, int K>
struct TopOneNotNormalised {
  static_assert(K != 1,
                "with TopK<1> a single gate divided by itself is always 1 and the router gets no gradient; allowed: "
                "SigmoidThenTopK without NormalisedGates, or TopK of 2 or more: TopOneNotNormalised<layer, K>");
};

template <class Layer, int Times>
struct OneGateOrder {
  static_assert(
      Times <= 1,
      "SoftmaxThenTopK, TopKThenSoftmax and SigmoidThenTopK exclude each other, and each may be given at most "
      "once: OneGateOrder<layer, times given>");
};

template <class Layer, int Times>
struct OneCapacity {
  static_assert(Times <= 1,
                "Capacity and FloorCapacity exclude each other: the places of an expert are rounded up or down: "
                "OneCapacity<layer, times given>");
};

/// Checks the options of routers over experts of these numbers, options such as Experts<8>.
template <class Layer, class... Options, class... Counts>
consteval void check_routing(std::type_identity<Counts>...) {
  constexpr int top_k = option_value<TopK, 1, Options...>();
  if constexpr (check_integer_option<Layer, TopK, 1, 1 << 16, Options...>()) {
    check<TopKOfExperts<Layer, TopK<top_k>, Counts>...>();
  }
  if constexpr (top_k == 1) check<TopOneNotRenormalised<Layer, Options>...>();
  check<OneGateOrder<Layer, (0 + ... + int(is_one_of<Options, SoftmaxThenTopK, TopKThenSoftmax, SigmoidThenTopK>))>>();
  check<OptionGivenOnce<Layer, RouterBias, (0 + ... + int(std::is_same_v<Options, RouterBias>))>>();
  check_ratio_option<Layer, BalanceLoss, 0, Options...>();
  check_ratio_option<Layer, ZLoss, 0, Options...>();
  check<OptionGivenOnce<Layer, SelectionBias, (0 + ... + int(std::is_same_v<Options, SelectionBias>))>>();
  check<OptionGivenOnce<Layer, NormalisedGates, (0 + ... + int(std::is_same_v<Options, NormalisedGates>))>>();
  if constexpr (is_one_of<NormalisedGates, Options...>) {
    constexpr bool of_sigmoids = is_one_of<SigmoidThenTopK, Options...>;
    check<NormalisedSigmoids<Layer, of_sigmoids>>();
    if constexpr (of_sigmoids) check<TopOneNotNormalised<Layer, top_k>>();
  }
  check_ratio_option<Layer, GateScale, 1, Options...>();
  check<OptionGivenOnce<Layer, JointFanIn, (0 + ... + int(std::is_same_v<Options, JointFanIn>))>>();
  check_ratio_option<Layer, Capacity, 1, Options...>();
  check_ratio_option<Layer, FloorCapacity, 1, Options...>();
  constexpr int floored = ratios_given<FloorCapacity, Options...>;
  check<OneCapacity<Layer, int(ratios_given<Capacity, Options...> > 0) + int(floored > 0)>>();
}

template <class T>
constexpr void set_routing(RoutingOptions&, std::type_identity<T>) {}
template <int N>
constexpr void set_routing(RoutingOptions& options, std::type_identity<TopK<N>>) {
  options.top_k = N;
}
template <int N, int D>
constexpr void set_routing(RoutingOptions& options, std::type_identity<Capacity<N, D>>) {
  options.capacity = {N, D};
}
template <int N, int D>
constexpr void set_routing(RoutingOptions& options, std::type_identity<FloorCapacity<N, D>>) {
  options.capacity = {N, D};
  options.floor_capacity = true;
}
template <int N, int D>
constexpr void set_routing(RoutingOptions& options, std::type_identity<BalanceLoss<N, D>>) {
  options.balance = {N, D};
}
template <int N, int D>
constexpr void set_routing(RoutingOptions& options, std::type_identity<ZLoss<N, D>>) {
  options.z = {N, D};
}
template <int N, int D>
constexpr void set_routing(RoutingOptions& options, std::type_identity<GateScale<N, D>>) {
  options.gate_scale = {N, D};
}
constexpr void set_routing(RoutingOptions& options, std::type_identity<NormalisedGates>) {
  options.normalised_gates = true;
}
constexpr void set_routing(RoutingOptions& options, std::type_identity<SelectionBias>) {
  options.selection_bias = true;
}
constexpr void set_routing(RoutingOptions& options, std::type_identity<TopKThenSoftmax>) {
  options.order = GateOrder::top_k_then_softmax;
}
constexpr void set_routing(RoutingOptions& options, std::type_identity<SigmoidThenTopK>) {
  options.order = GateOrder::sigmoid_then_top_k;
}
constexpr void set_routing(RoutingOptions& options, std::type_identity<RouterBias>) { options.router_bias = true; }
constexpr void set_routing(RoutingOptions& options, std::type_identity<JointFanIn>) { options.joint_fan_in = true; }

}  // namespace moe_mamba::inline v0_2::detail
