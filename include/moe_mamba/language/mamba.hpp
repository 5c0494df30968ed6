#pragma once

#include <algorithm>
#include <type_traits>

#include "moe_mamba/language/activation.hpp"
#include "moe_mamba/language/definition.hpp"
#include "moe_mamba/language/norm.hpp"
#include "moe_mamba/language/options.hpp"
#include "moe_mamba/language/routing.hpp"
#include "moe_mamba/layers/mamba.hpp"

/// Mamba<...>: its options, their checks, and the resulting layer.
namespace moe_mamba::inline v0_2 {

namespace detail {

template <class Option>
inline constexpr bool gives_mamba_experts =
    is_integer_option<InputExperts, Option> || is_integer_option<GateExperts, Option> ||
    is_integer_option<OutputExperts, Option>;

/// Whether an option configures experts that other options add.
template <class Option>
inline constexpr bool is_option_of_mamba_experts =
    is_routing_option<Option> || is_integer_option<Hidden, Option> ||
    is_one_of<Option, SharedRouter, SeparateRouters> || ActivationType<Option>;

template <class Layer, class Option>
struct MambaTakes {
  static_assert(
      is_integer_option<State, Option> || is_integer_option<Convolution, Option> || is_integer_option<Expand, Option> ||
          is_integer_option<Inner, Option> || is_integer_option<StepRank, Option> ||
          is_norm_option<InnerNorm, Option> || is_one_of<Option, ProjectionBias, NoConvolutionBias> ||
          gives_mamba_experts<Option> || is_option_of_mamba_experts<Option>,
      "Mamba takes only the options State<N>, Convolution<K>, Expand<F> or Inner<E>, StepRank<R>, "
      "InnerNorm<Norm>, ProjectionBias, NoConvolutionBias, and for experts in its projections "
      "InputExperts<N>, GateExperts<N>, OutputExperts<N>, TopK<K>, Hidden<H> with an activation, SharedRouter or "
      "SeparateRouters, Capacity<n, d>, FloorCapacity<n, d>, BalanceLoss<n, d>, ZLoss<n, d>, GateScale<n, d>, "
      "RouterBias, SelectionBias, NormalisedGates, JointFanIn, SoftmaxThenTopK, TopKThenSoftmax or "
      "SigmoidThenTopK: MambaTakes<layer, option>");
};

template <class Layer, int Times>
struct ExpandOrInner {
  static_assert(Times <= 1, "Mamba: Expand<F> and Inner<E> both state the inner width; give one of them");
};

template <class Layer, class Option>
struct OptionOfExperts {
  static_assert(
      !is_option_of_mamba_experts<Option>,
      "Mamba: this option is about experts, but no projection has any; give InputExperts<N>, GateExperts<N> or "
      "OutputExperts<N>, or leave the option out: OptionOfExperts<layer, option>");
};

template <class Layer, class Input, class Gate, class Output>
struct SharedRouterCounts {
  static constexpr int most = std::max({Input::value, Gate::value, Output::value});
  static constexpr bool is_most_or_none(int count) { return count == 0 || count == most; }
  static_assert(is_most_or_none(Input::value) && is_most_or_none(Gate::value) && is_most_or_none(Output::value),
                "Mamba: one router for all projections needs as many experts in each; allowed: equal numbers, or "
                "SeparateRouters: SharedRouterCounts<layer, experts of each>");
};

template <class Layer, int Times>
struct OneKindOfRouter {
  static_assert(Times <= 1,
                "Mamba: SharedRouter and SeparateRouters exclude each other, and each may be given at most once");
};

template <class Layer, class Activation>
struct ActivationOfExperts {
  static_assert(
      !ActivationType<Activation>,
      "Mamba: an activation is for experts with two matrices; give their hidden width, Hidden<H>, or leave it "
      "out: ActivationOfExperts<layer, activation>");
};

template <class Layer, class Bias>
struct BiasOfExperts {
  static_assert(!std::is_same_v<Bias, ProjectionBias>,
                "Mamba: experts have no biases; leave out ProjectionBias or the experts");
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
consteval void check_mamba_experts() {
  constexpr bool input = check_integer_option<Layer, InputExperts, 1, 1 << 16, Options...>();
  constexpr bool gate = check_integer_option<Layer, GateExperts, 1, 1 << 16, Options...>();
  constexpr bool output = check_integer_option<Layer, OutputExperts, 1, 1 << 16, Options...>();
  if constexpr (!(... || gives_mamba_experts<Options>)) {
    check<OptionOfExperts<Layer, Options>...>();
  } else if constexpr (input && gate && output) {
    using Input = InputExperts<option_value<InputExperts, 0, Options...>()>;
    using Gate = GateExperts<option_value<GateExperts, 0, Options...>()>;
    using Output = OutputExperts<option_value<OutputExperts, 0, Options...>()>;
    // The fewest, which TopK must not exceed.
    constexpr int most = 1 << 16;
    constexpr int fewest =
        std::min({option_value<InputExperts, most, Options...>(), option_value<GateExperts, most, Options...>(),
                  option_value<OutputExperts, most, Options...>()});
    check_routing<Layer, Options...>(std::type_identity<Experts<fewest>>{});
    check_integer_option<Layer, Hidden, 1, 1 << 24, Options...>();
    check<OneActivation<Layer, (0 + ... + int(ActivationType<Options>))>>();
    if constexpr (times_given<Hidden, Options...> == 0) check<ActivationOfExperts<Layer, Options>...>();
    check<BiasOfExperts<Layer, Options>...>();
    check<OneKindOfRouter<Layer, (0 + ... + int(is_one_of<Options, SharedRouter, SeparateRouters>))>>();
    if constexpr (!(... || std::is_same_v<Options, SeparateRouters>)) {
      check<SharedRouterCounts<Layer, Input, Gate, Output>>();
    }
  }
}

template <class Layer, class... Options>
consteval bool check_mamba() {
  check<MambaTakes<Layer, Options>...>();
  check_integer_option<Layer, State, 1, 4096, Options...>();
  check_integer_option<Layer, Convolution, 1, 64, Options...>();
  check_integer_option<Layer, Expand, 1, 64, Options...>();
  check_integer_option<Layer, Inner, 1, 1 << 24, Options...>();
  check_integer_option<Layer, StepRank, 1, 1 << 20, Options...>();
  if constexpr (times_given<Expand, Options...> == 1 && times_given<Inner, Options...> == 1) {
    check<ExpandOrInner<Layer, 2>>();
  }
  check<MambaInnerNorm<Layer, inner_norm_of<Options...>>>();
  check<OptionGivenOnce<Layer, InnerNorm<inner_norm_of<Options...>>,
                        (0 + ... + int(is_norm_option<InnerNorm, Options>))>>();
  check<OptionGivenOnce<Layer, ProjectionBias, (0 + ... + int(std::is_same_v<Options, ProjectionBias>))>>();
  check<OptionGivenOnce<Layer, NoConvolutionBias, (0 + ... + int(std::is_same_v<Options, NoConvolutionBias>))>>();
  check_mamba_experts<Layer, Options...>();
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
constexpr void set(MambaOptions& options, std::type_identity<Inner<N>>) {
  options.inner = N;
}
template <int N>
constexpr void set(MambaOptions& options, std::type_identity<StepRank<N>>) {
  options.step_rank = N;
}
template <int N>
constexpr void set(MambaOptions& options, std::type_identity<InputExperts<N>>) {
  options.experts.input = N;
}
template <int N>
constexpr void set(MambaOptions& options, std::type_identity<GateExperts<N>>) {
  options.experts.gate = N;
}
template <int N>
constexpr void set(MambaOptions& options, std::type_identity<OutputExperts<N>>) {
  options.experts.output = N;
}
template <int N>
constexpr void set(MambaOptions& options, std::type_identity<Hidden<N>>) {
  options.experts.hidden = N;
}
constexpr void set(MambaOptions& options, std::type_identity<SeparateRouters>) {
  options.experts.separate_routers = true;
}
constexpr void set(MambaOptions& options, std::type_identity<ProjectionBias>) { options.projection_bias = true; }
constexpr void set(MambaOptions& options, std::type_identity<NoConvolutionBias>) { options.convolution_bias = false; }

}  // namespace detail

/// The Mamba block. Options: State<16>, Convolution<4>, Expand<2> or Inner<E>, StepRank<width / 16, rounded up>,
/// InnerNorm<NoNorm>; ProjectionBias and NoConvolutionBias (off).
///
/// InputExperts<N>, GateExperts<N> and OutputExperts<N> put experts in place of the projections to x, to the gate z and
/// out of the block. An expert is one matrix, or two with Hidden<H> and an activation (Relu). One router chooses for
/// all of them (SharedRouter), or a router for each (SeparateRouters); the options of a router are those of Moe.
template <class... Options>
struct Mamba {
  static_assert(detail::check_mamba<Mamba, Options...>());

  static constexpr MambaOptions options = [] {
    MambaOptions all;
    (detail::set(all, std::type_identity<Options>{}), ...);
    (detail::set_routing(all.experts.routing, std::type_identity<Options>{}), ...);
    return all;
  }();
  using inner_norm = detail::norm_or_none<detail::inner_norm_of<Options...>>;
  using expert_activation = detail::activation_of<Options...>;

  template <int W>
  using Layer =
      MambaLayer<W, options.of_width(W), typename detail::CheckedNorm<inner_norm, options.of_width(W).states>::type,
                 expert_activation>;
};

}  // namespace moe_mamba::inline v0_2
