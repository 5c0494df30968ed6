#pragma once

#include <type_traits>

#include "moe_mamba/blocks/layer.hpp"
#include "moe_mamba/core/ratio.hpp"
#include "moe_mamba/layers/mlp.hpp"
#include "moe_mamba/ops/activation.hpp"
#include "moe_mamba/ops/dispatch.hpp"
#include "moe_mamba/ops/elementwise.hpp"
#include "moe_mamba/ops/linear.hpp"
#include "moe_mamba/ops/router.hpp"

namespace moe_mamba {

/// The numbers of a mixture of experts.
struct MoeOptions {
  int experts = 1;         ///< E
  int top_k = 1;           ///< K
  int hidden = 0;          ///< H, of an expert; 0: four times the width
  int shared_experts = 0;  ///< that every token goes to
  GateOrder order = GateOrder::softmax_then_top_k;
  bool router_bias = false;
  Ratio capacity{0, 1};   ///< c; 0: none, dropless
  Ratio balance{1, 100};  ///< factor of the balance loss
  Ratio z{0, 1};          ///< factor of the z-loss

  /// The same with nothing left to the width.
  constexpr MoeOptions of_width(int width) const {
    MoeOptions all = *this;
    if (hidden == 0) all.hidden = 4 * width;
    return all;
  }
};

/// Mixture of experts (Shazeer et al. 2017; Fedus et al. 2021): each token goes to K of the experts, which are
/// feed-forward layers without biases, and gets the sum of their outputs weighted by the router's gates, plus that of
/// the shared ones. See ops/router.hpp for gates and losses, ops/dispatch.hpp for the way there and back. With a
/// capacity limit c an expert takes ceil(c·T·K/E) of the T tokens of a call at most, earliest first, so that batch
/// mates then compete for places.
template <int D, MoeOptions Options, class Activation>
struct MoeLayer : LayerDefaults {
  static constexpr int E = Options.experts, K = Options.top_k, H = Options.hidden;
  static constexpr int shared_hidden = Options.shared_experts * H;
  static constexpr int gates = Activation::gated ? 2 : 1;
  static constexpr bool has_shared = Options.shared_experts > 0, has_bias = Options.router_bias;
  using Shared = MlpLayer<D, has_shared ? shared_hidden : 1, Activation, H>;
  /// What stands for the shared experts where there are none.
  struct NoShared : LayerDefaults {};
  using SharedOrNone = std::conditional_t<has_shared, Shared, NoShared>;

  template <class Bind>
  struct Weights {
    constexpr explicit Weights(Bind& bind)
        : router(bind.matrix("router.weight", E, D, Initializer::truncated_normal(0.1, D))),
          router_bias(bind.vector_if(has_bias, "router.bias", E, ParameterKind::bias, Initializer::zeros())),
          up(bind.stack("experts.up.weight", E, gates * H, D, Initializer::truncated_normal(0.1, D),
                        GradientStart::overwrite)),
          down(bind.stack("experts.down.weight", E, D, H, Initializer::truncated_normal(0.1, H),
                          GradientStart::overwrite)),
          shared(bind.template layer<SharedOrNone>("shared.")) {}
    typename Bind::Matrix router;       // (E, D)
    typename Bind::Vector router_bias;  // (E) or null
    typename Bind::Stack up;            // (E, H or 2H, D)
    typename Bind::Stack down;          // (E, D, H)
    typename SharedOrNone::template Weights<Bind> shared;
  };

  static constexpr Index expert_parameters = Index{gates + 1} * D * H;
  static constexpr Index matrices_met = Index{E} * D + (Index{K} + Options.shared_experts) * expert_parameters;
  static constexpr Index active_parameters = matrices_met + (has_bias ? E : 0);
  static constexpr double flops_per_token = 2.0 * matrices_met;

  static constexpr Index report_size = 5 + E;
  static constexpr bool takes_packed = true;
  static constexpr Index auxiliary_count = 1;
  /// A report holds the balance and z-loss without their factors, the entropy, the drops, the load of each expert,
  /// and how many tokens count.
  static constexpr double auxiliary_loss(const double* report) {
    return Options.balance.value() * report[0] + Options.z.value() * report[1];
  }

  template <class Visit>
  static void visit_routers(const Visit& visit, const double* report) {
    visit(RouterReport{.balance_loss = Options.balance.value() * report[0],
                       .z_loss = Options.z.value() * report[1],
                       .entropy = report[2],
                       .dropped = report[3],
                       .load = {report + 4, static_cast<std::size_t>(E)}});
  }

  /// Places of an expert for `tokens` tokens.
  static constexpr Index capacity(Index tokens) {
    if constexpr (Options.capacity.numerator == 0) {
      return tokens;
    } else {
      const Index divisor = Index{E} * Options.capacity.denominator;
      return (tokens * K * Options.capacity.numerator + divisor - 1) / divisor;
    }
  }

  template <class C>
  struct Saved {
    constexpr Saved(Arena& arena, Shape shape) : Saved(arena, shape, shape.tokens(), shape.tokens() * K) {}
    MatrixView<compute_t<C>> probabilities;  // (T, E)
    compute_t<C>* log_sum_exp;               // (T)
    Index* experts;                          // (T, K)
    compute_t<C>* gate;                      // (T, K)
    Index* slots;                            // (T, K)
    Index* source;                           // (T·K)
    Index* offsets;                          // (E + 1)
    MatrixView<C> x;                         // (T·K, D): inputs in the order of the experts
    MatrixView<C> hidden;                    // (T·K, H or 2H)
    MatrixView<C> active;                    // (T·K, H)
    MatrixView<C> y;                         // (T·K, D): outputs in the order of the experts
    typename SharedOrNone::template Saved<C> shared;

    constexpr Groups groups() const { return {offsets, E}; }

   private:
    constexpr Saved(Arena& arena, Shape shape, Index tokens, Index assignments)
        : probabilities(arena.rows<compute_t<C>>(tokens, E)),
          log_sum_exp(arena.take<compute_t<C>>(tokens)),
          experts(arena.take<Index>(assignments)),
          gate(arena.take<compute_t<C>>(assignments)),
          slots(arena.take<Index>(assignments)),
          source(arena.take<Index>(assignments)),
          offsets(arena.take<Index>(E + 1)),
          x(arena.rows<C>(assignments, D)),
          hidden(arena.rows<C>(assignments, gates * H)),
          active(arena.rows<C>(assignments, H)),
          y(arena.rows<C>(assignments, D)),
          shared(arena, shape) {}
  };

  template <class C>
  struct ForwardScratch {
    template <class Device>
    ForwardScratch(Arena& arena, Device& device, Shape shape)
        : logits(arena.rows<compute_t<C>>(shape.tokens(), E)),
          mean_probability(arena.take<double>(E)),
          shared(arena.block(bytes_of<typename SharedOrNone::template ForwardScratch<C>>(device, shape))) {}
    MatrixView<compute_t<C>> logits;  // (T, E)
    double* mean_probability;         // (E)
    Arena shared;
  };

  template <class C>
  struct BackwardScratch {
    template <class Device>
    BackwardScratch(Arena& arena, Device& device, Shape shape)
        : dy(arena.rows<C>(shape.tokens() * K, D)),
          dx(arena.rows<C>(shape.tokens() * K, D)),
          dhidden(arena.rows<C>(shape.tokens() * K, gates * H)),
          dactive(arena.rows<C>(shape.tokens() * K, H)),
          dgate(arena.take<compute_t<C>>(shape.tokens() * K)),
          dlogits(arena.rows<compute_t<C>>(shape.tokens(), E)),
          shared(arena.block(bytes_of<typename SharedOrNone::template BackwardScratch<C>>(device, shape))) {}
    MatrixView<C> dy, dx;              // (T·K, D)
    MatrixView<C> dhidden;             // (T·K, H or 2H)
    MatrixView<C> dactive;             // (T·K, H)
    compute_t<C>* dgate;               // (T, K)
    MatrixView<compute_t<C>> dlogits;  // (T, E)
    Arena shared;
  };

  template <class Device, class S, class C>
  static void forward(Forward<Device, S, C> run, const auto& w, const Saved<C>& saved, MatrixView<const C> x,
                      MatrixView<C> y) {
    auto& device = run.device;
    const ForwardScratch<C> scratch(run.scratch, device, run.shape);
    const Index tokens = run.shape.tokens();

    linear(device, x, w.router, scratch.logits);
    if constexpr (has_bias) add_bias(device, w.router_bias, scratch.logits);
    route(device, Router<compute_t<C>, E, K>{.order = Options.order,
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
    grouped_linear(device, saved.groups(), saved.x, w.up, saved.hidden);
    grouped_activate(device, saved.groups(), Activation{}, saved.hidden, saved.active);
    grouped_linear(device, saved.groups(), saved.active, w.down, saved.y);

    run.scratch = scratch.shared;
    if constexpr (has_shared) Shared::forward(run, w.shared, saved.shared, x, y);
    combine_rows(device, saved.y, saved.slots, Index{K}, saved.gate, y, has_shared ? Into::add : Into::assign);
  }

  template <class Device, class S, class C>
  static void backward(Backward<Device, S, C> run, const auto& w, const auto& g, const Saved<C>& saved,
                       MatrixView<const C> x, MatrixView<const C> dy, MatrixView<C> dx) {
    auto& device = run.device;
    const BackwardScratch<C> scratch(run.scratch, device, run.shape);

    const Into into = run.begins ? Into::assign : Into::add;
    combine_rows_backward(device, saved.y, saved.slots, Index{K}, saved.gate, dy, scratch.dy, scratch.dgate);
    grouped_linear_backward_weight<S>(device, saved.groups(), scratch.dy, saved.active, g.down, into);
    grouped_linear_backward_input(device, saved.groups(), scratch.dy, w.down, scratch.dactive, Into::assign);
    grouped_activate_backward(device, saved.groups(), Activation{}, saved.hidden, scratch.dactive, scratch.dhidden);
    grouped_linear_backward_weight<S>(device, saved.groups(), scratch.dhidden, saved.x, g.up, into);
    grouped_linear_backward_input(device, saved.groups(), scratch.dhidden, w.up, scratch.dx, Into::assign);

    run.scratch = scratch.shared;
    if constexpr (has_shared) Shared::backward(run, w.shared, g.shared, saved.shared, x, dy, dx);
    combine_rows(device, scratch.dx, saved.slots, Index{K}, nullptr, dx, has_shared ? Into::add : Into::assign);

    router_backward(device,
                    RouterBackward<compute_t<C>, E, K>{.order = Options.order,
                                                       .probabilities = saved.probabilities,
                                                       .log_sum_exp = saved.log_sum_exp,
                                                       .experts = saved.experts,
                                                       .gates = saved.gate,
                                                       .load = run.report + 4,
                                                       .dgates = scratch.dgate,
                                                       .balance = run.auxiliary_weight * Options.balance.value(),
                                                       .z = run.auxiliary_weight * Options.z.value(),
                                                       .dlogits = scratch.dlogits,
                                                       .counted = run.report + 4 + E,
                                                       .targets = run.targets});
    linear_backward_weight<S>(device, scratch.dlogits, x, g.router);
    if constexpr (has_bias) bias_backward(device, scratch.dlogits, g.router_bias);
    linear_backward_input(device, scratch.dlogits, w.router, dx, Into::add);
  }
};

}  // namespace moe_mamba
