#pragma once

#include <cstddef>
#include <type_traits>

#include "moe_mamba/blocks/projection.hpp"
#include "moe_mamba/core/ratio.hpp"
#include "moe_mamba/ops/dispatch.hpp"
#include "moe_mamba/ops/elementwise.hpp"
#include "moe_mamba/ops/router.hpp"

namespace moe_mamba::inline v0_2 {

/// The options of a routing.
struct RoutingOptions {
  int experts = 1;  ///< E
  int top_k = 1;    ///< K
  GateOrder order = GateOrder::softmax_then_top_k;
  bool router_bias = false;
  Ratio capacity{0, 1};         ///< c; 0: none, dropless
  bool floor_capacity = false;  ///< the capacity is rounded down rather than up
  Ratio balance{1, 100};        ///< factor of the balance loss
  Ratio z{0, 1};                ///< factor of the z-loss
  bool selection_bias = false;
  bool normalised_gates = false;  ///< with GateOrder::sigmoid_then_top_k only
  Ratio gate_scale{1, 1};
  /// Initial weights as in the code of MoE-Mamba: truncated at ± 0.2 instead of two standard deviations, and the fan-in
  /// of experts' second matrices is that of all experts together.
  bool joint_fan_in = false;

  /// The initialiser of a matrix of the router or of the experts.
  constexpr Initializer initializer(Index fan_in) const {
    return joint_fan_in ? Initializer::bounded_normal(0.1, fan_in) : Initializer::truncated_normal(0.1, fan_in);
  }
};

/// The report of a routing for a call: sums over its tokens, as consecutive doubles in the device's memory. Reports of
/// several calls, or of several ranks, may be added up.
template <class T, int Experts, int TopK>
struct RoutingStatistics {
  static constexpr Index size = 4 + 2 * Experts;

  constexpr explicit RoutingStatistics(T* first)
      : entropy(first),
        square_log_sum_exp(first + 1),
        dropped(first + 2),
        counted(first + 3),
        load(first + 4),
        probability(load + Experts) {}
  T* entropy;             // of a token's probabilities, in nats
  T* square_log_sum_exp;  // of a token's logits
  T* dropped;             // assignments beyond an expert's capacity
  T* counted;             // the number of counted tokens
  T* load;                // (E): tokens assigned to each expert, dropped ones included
  T* probability;         // (E)

  constexpr RouterMeans means() const {
    return router_means(Experts, TopK, load, probability, *entropy, *square_log_sum_exp, *counted);
  }
};

/// The gradient with respect to the gates of a routing, (T, K): the sum over the projections that weight their outputs
/// by them.
template <class C>
class GateGradient {
 public:
  /// `part` is scratch for the terms after the first.
  constexpr GateGradient(MatrixView<compute_t<C>> sum, MatrixView<compute_t<C>> part) : sum_(sum), part_(part) {}

  /// Adds what write(to) writes, (T, K).
  template <class Device, class Write>
  void accumulate(Device& device, const Write& write) {
    write((is_empty_ ? sum_ : part_).data);
    if (!is_empty_) add(device, part_, sum_);
    is_empty_ = false;
  }

  /// The sum; zeros if nothing was added.
  template <class Device>
  const compute_t<C>* finish(Device& device) const {
    if (is_empty_) fill(device, compute_t<C>(0), sum_);
    return sum_.data;
  }

 private:
  MatrixView<compute_t<C>> sum_, part_;
  bool is_empty_ = true;
};

/// A router and its decisions: the K of E experts of each token, their gates, and the row of each assignment in the
/// order of the experts. A layer computes it once, and any number of projections of experts may use it. See
/// ops/router.hpp for gates and losses, ops/dispatch.hpp for the order. With a capacity factor c an expert takes at
/// most ceil(c·T·K/E) of the T tokens of a call, earliest first, so the sequences of a batch compete for slots. With
/// floor_capacity it is floor(c·T·K/E), which is 0 if c·T·K < E.
template <int Width, RoutingOptions Options>
struct Routing : LayerDefaults {
  static constexpr RoutingOptions options = Options;
  static constexpr int E = Options.experts, K = Options.top_k;
  static constexpr double balance = Options.balance.value(), z = Options.z.value(),
                          gate_scale = Options.gate_scale.value();
  using Scores = Projection<Width, E, Options.router_bias>;

  template <class Bind>
  struct Weights {
    constexpr explicit Weights(Bind& bind)
        : scores(bind, Options.initializer(Width)),
          selection_bias(bind.vector_if(Options.selection_bias, "selection_bias", E, ParameterKind::selection_bias,
                                        Initializer::zeros())) {}
    typename Scores::template Weights<Bind> scores;  // (E, Width)
    typename Bind::Vector selection_bias;            // (E) or null
  };

  static constexpr Index active_parameters = Scores::active_parameters + (Options.selection_bias ? E : 0);
  static constexpr double flops_per_token = Scores::flops_per_token;
  static constexpr bool takes_packed = true;
  template <class C>
  static std::size_t thread_scratch(const auto& device, Shape shape, bool training) {
    return std::max(Scores::template thread_scratch<C>(device, shape, training),
                    route_thread_scratch<E>(device, shape.tokens()));
  }

  template <class T>
  using Statistics = RoutingStatistics<T, E, K>;
  static constexpr Index report_size = Statistics<double>::size;
  static constexpr Index auxiliary_count = 1;

  static constexpr double auxiliary_loss(const double* report) {
    const RouterMeans means = Statistics<const double>(report).means();
    return balance * means.balance + z * means.square_log_sum_exp;
  }

  template <class Visit>
  static void visit_routers(const Visit& visit, const double* report) {
    const Statistics<const double> statistics(report);
    const RouterMeans means = statistics.means();
    visit(RouterReport{.balance_loss = balance * means.balance,
                       .z_loss = z * means.square_log_sum_exp,
                       .entropy = means.entropy,
                       .dropped = *statistics.dropped,
                       .load = {statistics.load, static_cast<std::size_t>(E)},
                       .has_selection_bias = Options.selection_bias});
  }

  static constexpr bool is_dropless = Options.capacity.numerator == 0;

  /// Places of an expert for `tokens` tokens.
  static constexpr Index capacity(Index tokens) {
    if constexpr (is_dropless) {
      return tokens;
    } else {
      const Index divisor = Index{E} * Options.capacity.denominator;
      return (tokens * K * Options.capacity.numerator + (Options.floor_capacity ? 0 : divisor - 1)) / divisor;
    }
  }

  template <class C>
  struct Saved {
    template <class Device>
    constexpr Saved(Arena& arena, Device&, Shape shape)
        : probabilities(arena.rows<compute_t<C>>(shape.tokens(), E)),
          log_sum_exp(arena.take<compute_t<C>>(shape.tokens())),
          experts(arena.take<Index>(shape.tokens() * K)),
          gates(arena.take<compute_t<C>>(shape.tokens() * K)),
          sigmoids(Options.normalised_gates ? arena.take<compute_t<C>>(shape.tokens() * K) : nullptr),
          slots(arena.take<Index>(shape.tokens() * K)),
          source(arena.take<Index>(shape.tokens() * K)),
          offsets(arena.take<Index>(E + 1)) {}
    MatrixView<compute_t<C>> probabilities;  // (T, E)
    compute_t<C>* log_sum_exp;               // (T)
    Index* experts;                          // (T, K)
    compute_t<C>* gates;                     // (T, K)
    compute_t<C>* sigmoids;                  // (T, K) or null
    Index* slots;                            // (T, K): the row of each assignment in the order of the experts
    Index* source;                           // (T·K): the token of each row
    Index* offsets;                          // (E + 1)

    /// The rows of each expert.
    constexpr Groups groups() const { return {offsets, E}; }
  };

  template <class C>
  struct ForwardScratch {
    template <class Device>
    ForwardScratch(Arena& arena, Device&, Shape shape) : logits(arena.rows<compute_t<C>>(shape.tokens(), E)) {}
    MatrixView<compute_t<C>> logits;  // (T, E)
  };

  template <class C>
  struct BackwardScratch {
    template <class Device>
    BackwardScratch(Arena& arena, Device&, Shape shape)
        : dgates(arena.rows<compute_t<C>>(shape.tokens(), K)), dlogits(arena.rows<compute_t<C>>(shape.tokens(), E)) {}
    MatrixView<compute_t<C>> dgates;   // (T, K)
    MatrixView<compute_t<C>> dlogits;  // (T, E)

    /// The sum that the projections add to before backward(). Its scratch is that for logits, which only backward()
    /// needs.
    constexpr GateGradient<C> gate_gradient() const {
      return {dgates, matrix(dlogits.data, dgates.rows, dgates.columns)};
    }
  };

  /// Routes the rows of x, (T, Width).
  template <class Device, class S, class C>
  static void forward(const Forward<Device, S, C>& run, const auto& w, const Saved<C>& saved,
                      const ForwardScratch<C>& scratch, MatrixView<const C> x) {
    const Statistics<double> statistics(run.report);
    Scores::forward(run, w.scores, x, scratch.logits);
    // Routers without a bias share one type for parameters of any type.
    using Bias = std::conditional_t<Options.selection_bias, S, compute_t<C>>;
    Router<compute_t<C>, E, K, Bias> router{.order = Options.order,
                                            .logits = scratch.logits,
                                            .probabilities = saved.probabilities,
                                            .log_sum_exp = saved.log_sum_exp,
                                            .experts = saved.experts,
                                            .gates = saved.gates,
                                            .load = statistics.load,
                                            .probability = statistics.probability,
                                            .entropy = statistics.entropy,
                                            .square_log_sum_exp = statistics.square_log_sum_exp,
                                            .counted = statistics.counted,
                                            .targets = run.targets,
                                            .normalised = Options.normalised_gates,
                                            .scale = gate_scale,
                                            .sigmoids = saved.sigmoids};
    if constexpr (Options.selection_bias) router.selection_bias = w.selection_bias;
    route(run.device, router);
    group_tokens(run.device, GroupTokens{.tokens = run.shape.tokens(),
                                         .top_k = K,
                                         .expert_count = E,
                                         .capacity = capacity(run.shape.tokens()),
                                         .experts = saved.experts,
                                         .slots = saved.slots,
                                         .source = saved.source,
                                         .offsets = saved.offsets,
                                         .dropped = statistics.dropped});
  }

  /// To be called after the backward passes of the projections that use the routing; adds to dx.
  template <class Device, class S, class C>
  static void backward(const Backward<Device, S, C>& run, const auto& w, const auto& g, const Saved<C>& saved,
                       const BackwardScratch<C>& scratch, const GateGradient<C>& dgates, MatrixView<const C> x,
                       MatrixView<C> dx) {
    const Statistics<const double> statistics(run.report);
    router_backward(run.device, RouterBackward<compute_t<C>, E, K>{.order = Options.order,
                                                                   .probabilities = saved.probabilities,
                                                                   .log_sum_exp = saved.log_sum_exp,
                                                                   .experts = saved.experts,
                                                                   .gates = saved.gates,
                                                                   .load = statistics.load,
                                                                   .dgates = dgates.finish(run.device),
                                                                   .balance = run.auxiliary_weight * balance,
                                                                   .z = run.auxiliary_weight * z,
                                                                   .dlogits = scratch.dlogits,
                                                                   .counted = statistics.counted,
                                                                   .targets = run.targets,
                                                                   .normalised = Options.normalised_gates,
                                                                   .scale = gate_scale,
                                                                   .sigmoids = saved.sigmoids});
    Scores::backward(run, w.scores, g.scores, x, scratch.dlogits, dx, Into::add);
  }
};

}  // namespace moe_mamba::inline v0_2
