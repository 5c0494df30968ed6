#pragma once

#include <type_traits>

#include "moe_mamba/blocks/expert_projection.hpp"
#include "moe_mamba/blocks/layer_of.hpp"
#include "moe_mamba/blocks/routing.hpp"
#include "moe_mamba/layers/mlp.hpp"

namespace moe_mamba::inline v0_2 {

/// The options of a mixture of experts.
struct MoeOptions : RoutingOptions {
  int hidden = 0;          ///< H, per expert; 0: four times the width
  int shared_experts = 0;  ///< experts that every token goes to

  /// The same with every default that depends on the width resolved.
  constexpr MoeOptions of_width(int width) const {
    MoeOptions all = *this;
    if (hidden == 0) all.hidden = 4 * width;
    return all;
  }
};

/// Mixture of experts (Shazeer et al. 2017; Fedus et al. 2021): each token goes to K of the experts, which are
/// feed-forward layers without biases, and gets the sum of their outputs weighted by the router's gates, plus those of
/// the shared ones. See blocks/routing.hpp for the choice of experts, losses and capacity.
template <int D, MoeOptions Options, class Activation>
struct MoeLayer : LayerDefaults {
  static constexpr int H = Options.hidden;
  static constexpr bool has_shared = Options.shared_experts > 0;
  using Choice = Routing<D, RoutingOptions(Options)>;
  using Experts = ExpertProjection<Choice, ExpertMlp<D, H, D, Options.experts, Activation>>;
  using Shared = MlpLayer<D, has_shared ? Options.shared_experts * H : 1, Activation, H>;
  /// Stands for the shared experts if there are none.
  struct NoShared : LayerOf<> {};
  using SharedOrNone = std::conditional_t<has_shared, Shared, NoShared>;
  using Sum = LayerOf<Choice, Experts, SharedOrNone>;

  template <class Bind>
  struct Weights {
    constexpr explicit Weights(Bind& bind)
        : router(bind.template block<Choice>("router.")),
          experts(bind.template block<Experts>("experts.", RoutingOptions(Options))),
          shared(bind.template block<SharedOrNone>("shared.")) {}
    typename Choice::template Weights<Bind> router;
    typename Experts::template Weights<Bind> experts;
    typename SharedOrNone::template Weights<Bind> shared;
  };

  static constexpr Index active_parameters = Sum::active_parameters;
  static constexpr double flops_per_token = Sum::flops_per_token;
  static constexpr bool takes_packed = true;
  static constexpr Index report_size = Sum::report_size;
  template <class C>
  static std::size_t thread_scratch(const auto& device, Shape shape, bool training) {
    return Sum::template thread_scratch<C>(device, shape, training);
  }
  static constexpr Index auxiliary_count = Sum::auxiliary_count;
  static constexpr double auxiliary_loss(const double* report) { return Sum::auxiliary_loss(report); }
  template <class Visit>
  static void visit_routers(const Visit& visit, const double* report) {
    Sum::visit_routers(visit, report);
  }

  template <class C>
  struct Saved {
    template <class Device>
    constexpr Saved(Arena& arena, Device& device, Shape shape)
        : choice(arena, device, shape), experts(arena, device, shape), shared(arena, device, shape) {}
    typename Choice::template Saved<C> choice;
    typename Experts::template Saved<C> experts;
    typename SharedOrNone::template Saved<C> shared;
  };

  template <class C>
  struct ForwardScratch {
    template <class Device>
    ForwardScratch(Arena& arena, Device& device, Shape shape)
        : choice(arena, device, shape),
          experts(arena, device, shape),
          shared(arena.block(bytes_of<typename SharedOrNone::template ForwardScratch<C>>(device, shape))) {}
    typename Choice::template ForwardScratch<C> choice;
    typename Experts::template ForwardScratch<C> experts;
    Arena shared;
  };

  template <class C>
  struct BackwardScratch {
    template <class Device>
    BackwardScratch(Arena& arena, Device& device, Shape shape)
        : choice(arena, device, shape),
          experts(arena, device, shape),
          shared(arena.block(bytes_of<typename SharedOrNone::template BackwardScratch<C>>(device, shape))) {}
    typename Choice::template BackwardScratch<C> choice;
    typename Experts::template BackwardScratch<C> experts;
    Arena shared;
  };

  template <class Device, class S, class C>
  static void forward(Forward<Device, S, C> run, const auto& w, const Saved<C>& saved, MatrixView<const C> x,
                      MatrixView<C> y) {
    const ForwardScratch<C> scratch(run.scratch, run.device, run.shape);
    Choice::forward(run, w.router, saved.choice, scratch.choice, x);
    run.scratch = scratch.shared;
    if constexpr (has_shared) Shared::forward(run, w.shared, saved.shared, x, y);
    Experts::forward(run, w.experts, saved.choice, saved.experts, scratch.experts, x, y,
                     has_shared ? Into::add : Into::assign);
  }

  template <class Device, class S, class C>
  static void backward(Backward<Device, S, C> run, const auto& w, const auto& g, const Saved<C>& saved,
                       MatrixView<const C> x, MatrixView<const C> dy, MatrixView<C> dx) {
    const BackwardScratch<C> scratch(run.scratch, run.device, run.shape);
    GateGradient<C> dgates = scratch.choice.gate_gradient();
    run.scratch = scratch.shared;
    if constexpr (has_shared) Shared::backward(run, w.shared, g.shared, saved.shared, x, dy, dx);
    Experts::backward(run, w.experts, g.experts, saved.choice, dgates, saved.experts, scratch.experts, dy, dx,
                      has_shared ? Into::add : Into::assign);
    Choice::backward(run, w.router, g.router, saved.choice, scratch.choice, dgates, x, dx);
  }
};

}  // namespace moe_mamba::inline v0_2
