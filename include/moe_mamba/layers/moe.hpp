#pragma once

#include <array>

#include "moe_mamba/layers/layer.hpp"
#include "moe_mamba/layers/mlp.hpp"
#include "moe_mamba/layers/options.hpp"
#include "moe_mamba/ops/activation.hpp"
#include "moe_mamba/ops/dispatch.hpp"
#include "moe_mamba/ops/elementwise.hpp"
#include "moe_mamba/ops/linear.hpp"
#include "moe_mamba/ops/router.hpp"

namespace moe_mamba {

/// Mixture of experts (Shazeer et al. 2017; Fedus et al. 2021): each token goes to K of the experts, which are
/// feed-forward layers without biases, and gets the sum of their outputs weighted by the router's gates, plus that of
/// the shared ones. See ops/router.hpp for gates and losses, ops/dispatch.hpp for the way there and back. With a
/// capacity limit c an expert takes ceil(c·T·K/E) of the T tokens of a call at most, earliest first, so that batch
/// mates then compete for places.
///
/// `Config` carries the numbers: see MoeConfig.
template <int D, class Config>
struct MoeLayer : LayerDefaults {
  static constexpr int E = Config::experts, K = Config::top_k, H = Config::hidden;
  static constexpr int shared_hidden = Config::shared_experts * H;
  using Activation = typename Config::activation;
  static constexpr int gates = Activation::gated ? 2 : 1;
  static constexpr bool has_shared = Config::shared_experts > 0, has_bias = Config::router_bias;
  using Shared = MlpLayer<D, has_shared ? shared_hidden : 1, Activation>;

  static constexpr auto parameters = [] {
    const Initial router{Initial::Law::truncated_normal, 0.1, D};
    std::array<Parameter, std::size_t{3} + (has_bias ? 1 : 0) + (has_shared ? 2 : 0)> all;
    std::size_t count = 0;
    all[count++] = matrix_parameter("router.weight", E, D, router);
    if (has_bias) all[count++] = vector_parameter("router.bias", E, ParameterKind::bias, {Initial::Law::zeros});
    all[count++] = stack_parameter("experts.up.weight", E, gates * H, D, {Initial::Law::truncated_normal, 0.1, D});
    all[count++] = stack_parameter("experts.down.weight", E, D, H, {Initial::Law::truncated_normal, 0.1, H});
    all[count - 2].begun_by_layer = all[count - 1].begun_by_layer = true;
    if (has_shared) {
      all[count++] = matrix_parameter("shared.up.weight", Shared::rows, D, {Initial::Law::truncated_normal, 0.1, D});
      all[count++] = matrix_parameter("shared.down.weight", D, shared_hidden, {Initial::Law::truncated_normal, 0.1, H});
    }
    return lay_out(all);
  }();
  static constexpr Index router_weight = offset_of(parameters, "router.weight");
  static constexpr Index router_bias = router_weight + Index{E} * D;
  static constexpr Index up = offset_of(parameters, "experts.up.weight");
  static constexpr Index down = offset_of(parameters, "experts.down.weight");
  static constexpr Index shared = down + Index{E} * D * H;

  static constexpr Index expert_parameters = Index{gates + 1} * D * H;
  static constexpr Index matrices_met = Index{E} * D + (Index{K} + Config::shared_experts) * expert_parameters;
  static constexpr Index active_parameters = matrices_met + (has_bias ? E : 0);
  static constexpr double flops_per_token = 2.0 * matrices_met;

  static constexpr Index report_size = 5 + E;
  static constexpr bool takes_packed = true;
  static constexpr Index auxiliary_count = 1;
  /// A report holds the balance and z-loss without their factors, the entropy, the drops, the load of each expert,
  /// and how many tokens count.
  static constexpr double auxiliary_loss(const double* report) {
    return Config::balance.value() * report[0] + Config::z.value() * report[1];
  }

  template <class Visit>
  static void visit_routers(const Visit& visit, const double* report) {
    visit(RouterReport{.balance_loss = Config::balance.value() * report[0],
                       .z_loss = Config::z.value() * report[1],
                       .entropy = report[2],
                       .dropped = report[3],
                       .load = {report + 4, static_cast<std::size_t>(E)}});
  }

  /// Places of an expert for `tokens` tokens.
  static constexpr Index capacity(Index tokens) {
    if constexpr (Config::capacity.numerator == 0) {
      return tokens;
    } else {
      const Index divisor = Index{E} * Config::capacity.denominator;
      return (tokens * K * Config::capacity.numerator + divisor - 1) / divisor;
    }
  }

  template <class C>
  struct Saved {
    constexpr Saved(Arena& arena, Shape shape) {
      const Index tokens = shape.tokens(), assignments = tokens * K;
      probabilities = matrix(arena.take<compute_t<C>>(tokens * E), tokens, E);
      log_sum_exp = arena.take<compute_t<C>>(tokens);
      experts = arena.take<Index>(assignments);
      gate = arena.take<compute_t<C>>(assignments);
      slots = arena.take<Index>(assignments);
      source = arena.take<Index>(assignments);
      offsets = arena.take<Index>(E + 1);
      x = matrix(arena.take<C>(assignments * D), assignments, D);
      hidden = matrix(arena.take<C>(assignments * gates * H), assignments, gates * H);
      active = matrix(arena.take<C>(assignments * H), assignments, H);
      y = matrix(arena.take<C>(assignments * D), assignments, D);
      shared_tape = arena;
      if constexpr (has_shared) arena = arena.advanced(tape_bytes<Shared, C>(shape));
    }
    MatrixView<compute_t<C>> probabilities;  // (T, E)
    compute_t<C>* log_sum_exp;               // (T)
    Index* experts;                          // (T, K)
    compute_t<C>* gate;                      // (T, K)
    Index* slots;                            // (T, K)
    Index* source;                           // (T·K)
    Index* offsets;                          // (E + 1)
    MatrixView<C> x, y;                      // (T·K, D): inputs and outputs in the order of the experts
    MatrixView<C> hidden;                    // (T·K, H or 2H)
    MatrixView<C> active;                    // (T·K, H)
    Arena shared_tape;

    constexpr Groups groups() const { return {offsets, E}; }
  };

  template <class C, class Device>
  static std::size_t scratch_bytes(Device& device, Shape shape, bool training) {
    const std::size_t own = largest_scratch<ForwardScratch<C>, BackwardScratch<C>>(device, shape, training);
    if constexpr (has_shared) {
      return own + Shared::template scratch_bytes<C>(device, shape, training);
    } else {
      return own;
    }
  }

  template <class Device, class S, class C>
  static void forward(Forward<Device, S, C> run, MatrixView<const C> x, MatrixView<C> y) {
    auto& device = run.device;
    const Saved<C> saved(run.tape, run.shape);
    const ForwardScratch<C> scratch(run.scratch, device, run.shape);
    const S* p = run.parameters;
    const Index tokens = run.shape.tokens();

    linear(device, x, matrix(p + router_weight, E, D), scratch.logits);
    if constexpr (has_bias) add_bias(device, p + router_bias, scratch.logits);
    route(device, Router<compute_t<C>, E, K>{.order = Config::order,
                                             .logits = scratch.logits,
                                             .probabilities = saved.probabilities,
                                             .log_sum_exp = saved.log_sum_exp,
                                             .experts = saved.experts,
                                             .gates = saved.gate,
                                             .load = run.report + 4,
                                             .mean_probability = scratch.mean_probability,
                                             .entropy = run.report + 2,
                                             .mean_square_log_sum_exp = run.report + 1,
                                             .balance = run.report,
                                             .counted = run.report + 4 + E,
                                             .targets = run.targets});
    group_tokens(device, GroupTokens{.tokens = tokens,
                                     .top_k = K,
                                     .expert_count = E,
                                     .capacity = capacity(tokens),
                                     .experts = saved.experts,
                                     .slots = saved.slots,
                                     .source = saved.source,
                                     .offsets = saved.offsets,
                                     .dropped = run.report + 3});
    gather_rows(device, saved.groups(), x, saved.source, saved.x);
    grouped_linear(device, saved.groups(), saved.x, MatrixStack<const S>{p + up, gates * H, D}, saved.hidden);
    grouped_activate(device, saved.groups(), Activation{}, saved.hidden, saved.active);
    grouped_linear(device, saved.groups(), saved.active, MatrixStack<const S>{p + down, D, H}, saved.y);

    if constexpr (has_shared) {
      auto inner = run.advanced({.parameters = shared});
      inner.tape = saved.shared_tape;
      Shared::forward(inner, x, y);
    }
    combine_rows(device, saved.y, saved.slots, Index{K}, saved.gate, y, has_shared ? Into::add : Into::assign);
  }

  template <class Device, class S, class C>
  static void backward(Backward<Device, S, C> run, MatrixView<const C> x, MatrixView<const C> dy, MatrixView<C> dx) {
    auto& device = run.device;
    const Saved<C> saved(run.tape, run.shape);
    const BackwardScratch<C> scratch(run.scratch, device, run.shape);
    const S* p = run.parameters;
    auto* g = run.gradients;

    const Into into = run.begins ? Into::assign : Into::add;
    combine_rows_backward(device, saved.y, saved.slots, Index{K}, saved.gate, dy, scratch.dy, scratch.dgate);
    grouped_linear_backward_weight<S>(device, saved.groups(), scratch.dy, saved.active,
                                      MatrixStack<compute_t<C>>{g + down, D, H}, into);
    grouped_linear_backward_input(device, saved.groups(), scratch.dy, MatrixStack<const S>{p + down, D, H},
                                  scratch.dactive, Into::assign);
    grouped_activate_backward(device, saved.groups(), Activation{}, saved.hidden, scratch.dactive, scratch.dhidden);
    grouped_linear_backward_weight<S>(device, saved.groups(), scratch.dhidden, saved.x,
                                      MatrixStack<compute_t<C>>{g + up, gates * H, D}, into);
    grouped_linear_backward_input(device, saved.groups(), scratch.dhidden, MatrixStack<const S>{p + up, gates * H, D},
                                  scratch.dx, Into::assign);

    if constexpr (has_shared) {
      auto inner = run.advanced({.parameters = shared});
      inner.tape = saved.shared_tape;
      Shared::backward(inner, x, dy, dx);
    }
    combine_rows(device, scratch.dx, saved.slots, Index{K}, nullptr, dx, has_shared ? Into::add : Into::assign);

    router_backward(device,
                    RouterBackward<compute_t<C>, E, K>{.order = Config::order,
                                                       .probabilities = saved.probabilities,
                                                       .log_sum_exp = saved.log_sum_exp,
                                                       .experts = saved.experts,
                                                       .gates = saved.gate,
                                                       .load = run.report + 4,
                                                       .dgates = scratch.dgate,
                                                       .balance = run.auxiliary_weight * Config::balance.value(),
                                                       .z = run.auxiliary_weight * Config::z.value(),
                                                       .dlogits = scratch.dlogits,
                                                       .counted = run.report + 4 + E,
                                                       .targets = run.targets});
    linear_backward_weight<S>(device, scratch.dlogits, x, matrix(g + router_weight, E, D));
    if constexpr (has_bias) bias_backward(device, scratch.dlogits, g + router_bias);
    linear_backward_input(device, scratch.dlogits, matrix(p + router_weight, E, D), dx, Into::add);
  }

 private:
  template <class C>
  struct ForwardScratch {
    template <class Device>
    ForwardScratch(Arena& arena, Device&, Shape shape)
        : logits(matrix(arena.take<compute_t<C>>(shape.tokens() * E), shape.tokens(), E)),
          mean_probability(arena.take<double>(E)) {}
    MatrixView<compute_t<C>> logits;  // (T, E)
    double* mean_probability;         // (E)
  };

  template <class C>
  struct BackwardScratch {
    template <class Device>
    BackwardScratch(Arena& arena, Device&, Shape shape) {
      const Index tokens = shape.tokens(), assignments = tokens * K;
      dy = matrix(arena.take<C>(assignments * D), assignments, D);
      dx = matrix(arena.take<C>(assignments * D), assignments, D);
      dhidden = matrix(arena.take<C>(assignments * gates * H), assignments, gates * H);
      dactive = matrix(arena.take<C>(assignments * H), assignments, H);
      dgate = arena.take<compute_t<C>>(assignments);
      dlogits = matrix(arena.take<compute_t<C>>(tokens * E), tokens, E);
    }
    MatrixView<C> dy, dx;              // (T·K, D)
    MatrixView<C> dhidden;             // (T·K, H or 2H)
    MatrixView<C> dactive;             // (T·K, H)
    compute_t<C>* dgate;               // (T, K)
    MatrixView<compute_t<C>> dlogits;  // (T, E)
  };
};

/// The numbers of a mixture of experts. A capacity of 0 stands for none: dropless.
template <int Experts, int TopK, int Hidden, int SharedExperts, class Activation, GateOrder Order, bool RouterBias,
          int CapacityNumerator, int CapacityDenominator, int BalanceNumerator, int BalanceDenominator, int ZNumerator,
          int ZDenominator>
struct MoeConfig {
  static constexpr int experts = Experts, top_k = TopK, hidden = Hidden, shared_experts = SharedExperts;
  using activation = Activation;
  static constexpr GateOrder order = Order;
  static constexpr bool router_bias = RouterBias;
  static constexpr detail::Ratio capacity{CapacityNumerator, CapacityDenominator};
  static constexpr detail::Ratio balance{BalanceNumerator, BalanceDenominator};
  static constexpr detail::Ratio z{ZNumerator, ZDenominator};
};

namespace detail {

template <class Layer, class Option>
struct MoeTakes {
  static_assert(
      is_integer_option<Experts, Option> || is_integer_option<TopK, Option> || is_integer_option<Hidden, Option> ||
          is_integer_option<SharedExperts, Option> || is_ratio_option<Capacity, Option> ||
          is_ratio_option<BalanceLoss, Option> || is_ratio_option<ZLoss, Option> ||
          is_one_of<Option, SoftmaxThenTopK, TopKThenSoftmax, SigmoidThenTopK, RouterBias> || ActivationType<Option>,
      "Moe takes the options Experts<N>, TopK<K>, Hidden<H>, SharedExperts<N>, Capacity<n, d>, BalanceLoss<n, d>, "
      "ZLoss<n, d>, RouterBias, SoftmaxThenTopK, TopKThenSoftmax or SigmoidThenTopK, and an activation (Relu, "
      "SquaredRelu, Gelu, Silu, SwiGlu, "
      "GeGlu or your own with gated, value and derivative) and no other: MoeTakes<layer, option>");
};

template <class Layer, int Times>
struct MoeNeedsExperts {
  static_assert(Times >= 1, "Moe needs the option Experts<N>, N from 1 up: MoeNeedsExperts<layer, times given>");
};

template <class Layer, class Chosen, class All>
struct MoeTopK {
  static_assert(All::value < 1 || Chosen::value <= All::value,
                "Moe: TopK must be from 1 to Experts: MoeTopK<layer, TopK, Experts>");
};

template <class Layer, class Router>
struct TopOneNotRenormalised {
  static_assert(
      !std::is_same_v<Router, TopKThenSoftmax>,
      "Moe: with TopK<1> a softmax over the one chosen expert is always 1 and the router would learn nothing; "
      "allowed: SoftmaxThenTopK or SigmoidThenTopK, or TopK from 2 up");
};

template <class Layer, int Times>
struct OneGateOrder {
  static_assert(
      Times <= 1,
      "Moe: SoftmaxThenTopK, TopKThenSoftmax and SigmoidThenTopK exclude each other, and each is given once at "
      "most");
};

template <class Layer, class... Options>
consteval bool check_moe() {
  check<MoeTakes<Layer, Options>...>();
  check<MoeNeedsExperts<Layer, (0 + ... + int(is_integer_option<Experts, Options>))>>();
  check<OneActivation<Layer, (0 + ... + int(ActivationType<Options>))>>();
  check_integer_option<Layer, Experts, 1, 1 << 16, Options...>();
  check_integer_option<Layer, TopK, 1, 1 << 16, Options...>();
  check_integer_option<Layer, Hidden, 1, 1 << 24, Options...>();
  check_integer_option<Layer, SharedExperts, 0, 1 << 10, Options...>();
  constexpr int top_k = option_value<TopK, 1, Options...>();
  check<MoeTopK<Layer, TopK<top_k>, Experts<option_value<Experts, 1, Options...>()>>>();
  if constexpr (top_k == 1) check<TopOneNotRenormalised<Layer, Options>...>();
  check<OneGateOrder<Layer, (0 + ... + int(is_one_of<Options, SoftmaxThenTopK, TopKThenSoftmax, SigmoidThenTopK>))>>();
  check<OptionGivenOnce<Layer, RouterBias, (0 + ... + int(std::is_same_v<Options, RouterBias>))>>();
  check_ratio_option<Layer, BalanceLoss, 0, Options...>();
  check_ratio_option<Layer, ZLoss, 0, Options...>();
  check_ratio_option<Layer, Capacity, 1, Options...>();
  return true;
}

}  // namespace detail

/// A mixture of experts. Options: Experts<N> (must be given), TopK<1>, Hidden<4 · width>, SharedExperts<0>, an
/// activation (Relu), SoftmaxThenTopK (or TopKThenSoftmax, SigmoidThenTopK), RouterBias (none), Capacity<n, d> (none:
/// dropless), BalanceLoss<1, 100>, ZLoss<0, 1>.
template <class... Options>
struct Moe {
  static_assert(detail::check_moe<Moe, Options...>());

  template <int W>
  using Layer =
      MoeLayer<W, MoeConfig<detail::option_value<Experts, 1, Options...>(), detail::option_value<TopK, 1, Options...>(),
                            detail::option_value<Hidden, 4 * W, Options...>(),
                            detail::option_value<SharedExperts, 0, Options...>(), detail::activation_of<Options...>,
                            detail::is_one_of<TopKThenSoftmax, Options...>   ? GateOrder::top_k_then_softmax
                            : detail::is_one_of<SigmoidThenTopK, Options...> ? GateOrder::sigmoid_then_top_k
                                                                             : GateOrder::softmax_then_top_k,
                            detail::is_one_of<RouterBias, Options...>,
                            detail::option_ratio<Capacity, Options...>({0, 1}).numerator,
                            detail::option_ratio<Capacity, Options...>({0, 1}).denominator,
                            detail::option_ratio<BalanceLoss, Options...>({1, 100}).numerator,
                            detail::option_ratio<BalanceLoss, Options...>({1, 100}).denominator,
                            detail::option_ratio<ZLoss, Options...>({0, 1}).numerator,
                            detail::option_ratio<ZLoss, Options...>({0, 1}).denominator>>;
};

}  // namespace moe_mamba
