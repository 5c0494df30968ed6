#pragma once

#include <type_traits>

#include "moe_mamba/blocks/expert_projection.hpp"
#include "moe_mamba/blocks/layer_of.hpp"
#include "moe_mamba/blocks/projection.hpp"
#include "moe_mamba/blocks/routing.hpp"

/// Projections that may have experts, with one interface, so that a layer is written once for all of them:
///
///   DenseProjection<P>                          one matrix
///   LayerRoutedExperts<Routing, Expert, Use>    experts that a routing of the layer chooses, as for its other projections
///   SelfRoutedExperts<Options, Expert, Which>   experts chosen by the projection's own router, from its input
///
///   Weights<Bind>(bind, initializer)                                 initializer: of the matrices (Out, In)
///   forward(run, w, routed, saved, scratch, x, y)                    (T, In) → (T, Out)
///   backward(run, w, g, routed, dgates, saved, scratch, x, dy, dx, into)
///
/// where routed is the layer's Routing::Saved and dgates the gradient with respect to its gates, which only
/// LayerRoutedExperts adds to. A layer without a routing has NoRouting in its place.
namespace moe_mamba::inline v0_2 {

/// Stands for a Routing if there is none.
struct NoRouting : LayerOf<> {
  struct NoGateGradient {};

  template <class C>
  struct BackwardScratch : NoBuffers {
    using NoBuffers::NoBuffers;
    constexpr NoGateGradient gate_gradient() const { return {}; }
  };

  template <class Device, class S, class C>
  static void forward(const Forward<Device, S, C>&, const auto&, NoBuffers, NoBuffers, Input<C>) {}

  template <class Device, class S, class C>
  static void backward(const Backward<Device, S, C>&, const auto&, const auto&, NoBuffers, const BackwardScratch<C>&,
                       NoGateGradient, Input<C>, MatrixView<C>) {}
};

template <class Plain>
struct DenseProjection : LayerOf<Plain> {
  template <class Bind>
  using Weights = typename Plain::template Weights<Bind>;

  template <class Device, class S, class C>
  static void forward(const Forward<Device, S, C>& run, const auto& w, const auto&, NoBuffers, NoBuffers, Input<C> x,
                      MatrixView<C> y) {
    Plain::forward(run, w, x, y);
  }

  template <class Device, class S, class C>
  static void backward(const Backward<Device, S, C>& run, const auto& w, const auto& g, const auto&, auto&, NoBuffers,
                       NoBuffers, Input<C> x, Input<C> dy, MatrixView<C> dx, Into into = Into::assign) {
    Plain::backward(run, w, g, x, dy, dx, into);
  }
};

namespace detail {

/// The weights of experts. An expert of one matrix is initialised as a dense projection, unless the routing has
/// joint_fan_in.
template <class Expert, class Bind>
constexpr typename Expert::template Weights<Bind> expert_weights(Bind& bind, const RoutingOptions& options,
                                                                 const Initializer& initializer) {
  using Weights = typename Expert::template Weights<Bind>;
  if constexpr (std::is_constructible_v<Weights, Bind&, Initializer>) {
    return Weights(bind, options.joint_fan_in ? options.initializer(Expert::in) : initializer);
  } else {
    return Weights(bind, options);
  }
}

}  // namespace detail

template <class Routing, class Expert, GateUse Use>
struct LayerRoutedExperts : LayerOf<ExpertProjection<Routing, Expert, Use>> {
  using Experts = ExpertProjection<Routing, Expert, Use>;

  template <class Bind>
  struct Weights {
    constexpr Weights(Bind& bind, const Initializer& initializer)
        : experts(detail::expert_weights<Expert>(bind, Routing::options, initializer)) {}
    typename Expert::template Weights<Bind> experts;
  };

  template <class C>
  using Saved = typename Experts::template Saved<C>;
  template <class C>
  using ForwardScratch = typename Experts::template ForwardScratch<C>;
  template <class C>
  using BackwardScratch = typename Experts::template BackwardScratch<C>;

  template <class Device, class S, class C>
  static void forward(const Forward<Device, S, C>& run, const auto& w,
                      const typename Routing::template Saved<C>& routed, const Saved<C>& saved,
                      const ForwardScratch<C>& scratch, Input<C> x, MatrixView<C> y) {
    Experts::forward(run, w.experts, routed, saved, scratch, x, y);
  }

  template <class Device, class S, class C>
  static void backward(const Backward<Device, S, C>& run, const auto& w, const auto& g,
                       const typename Routing::template Saved<C>& routed, GateGradient<C>& dgates,
                       const Saved<C>& saved, const BackwardScratch<C>& scratch, Input<C>, Input<C> dy,
                       MatrixView<C> dx, Into into = Into::assign) {
    Experts::backward(run, w.experts, g.experts, routed, dgates, saved, scratch, dy, dx, into);
  }
};

template <RoutingOptions Options, class Expert, RoutedProjection Which>
struct SelfRoutedExperts
    : LayerOf<Routing<Expert::in, Options>, ExpertProjection<Routing<Expert::in, Options>, Expert>> {
  using Router = Routing<Expert::in, Options>;
  using Experts = ExpertProjection<Router, Expert>;

  template <class Visit>
  static void visit_routers(const Visit& visit, const double* report) {
    const auto visit_named = [&](RouterReport router) {
      router.projection = Which;
      visit(router);
    };
    Router::visit_routers(visit_named, report);
  }

  template <class Bind>
  struct Weights {
    constexpr Weights(Bind& bind, const Initializer& initializer)
        : router(bind.template block<Router>("router.")),
          experts(detail::expert_weights<Expert>(bind, Options, initializer)) {}
    typename Router::template Weights<Bind> router;
    typename Expert::template Weights<Bind> experts;
  };

  template <class C>
  struct Saved {
    template <class Device>
    constexpr Saved(Arena& arena, Device& device, Shape shape)
        : router(arena, device, shape), experts(arena, device, shape) {}
    typename Router::template Saved<C> router;
    typename Experts::template Saved<C> experts;
  };

  template <class C>
  struct ForwardScratch {
    template <class Device>
    ForwardScratch(Arena& arena, Device& device, Shape shape)
        : router(arena, device, shape), experts(arena, device, shape) {}
    typename Router::template ForwardScratch<C> router;
    typename Experts::template ForwardScratch<C> experts;
  };

  template <class C>
  struct BackwardScratch {
    template <class Device>
    BackwardScratch(Arena& arena, Device& device, Shape shape)
        : router(arena, device, shape), experts(arena, device, shape) {}
    typename Router::template BackwardScratch<C> router;
    typename Experts::template BackwardScratch<C> experts;
  };

  template <class Device, class S, class C>
  static void forward(const Forward<Device, S, C>& run, const auto& w, const auto&, const Saved<C>& saved,
                      const ForwardScratch<C>& scratch, Input<C> x, MatrixView<C> y) {
    Router::forward(run, w.router, saved.router, scratch.router, x);
    Experts::forward(run, w.experts, saved.router, saved.experts, scratch.experts, x, y);
  }

  template <class Device, class S, class C>
  static void backward(const Backward<Device, S, C>& run, const auto& w, const auto& g, const auto&, auto&,
                       const Saved<C>& saved, const BackwardScratch<C>& scratch, Input<C> x, Input<C> dy,
                       MatrixView<C> dx, Into into = Into::assign) {
    GateGradient<C> dgates = scratch.router.gate_gradient();
    Experts::backward(run, w.experts, g.experts, saved.router, dgates, saved.experts, scratch.experts, dy, dx, into);
    Router::backward(run, w.router, g.router, saved.router, scratch.router, dgates, x, dx);
  }
};

}  // namespace moe_mamba::inline v0_2
