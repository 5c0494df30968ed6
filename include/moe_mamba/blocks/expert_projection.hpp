#pragma once

#include "moe_mamba/blocks/layer_of.hpp"
#include "moe_mamba/blocks/routing.hpp"
#include "moe_mamba/ops/activation.hpp"
#include "moe_mamba/ops/dispatch.hpp"
#include "moe_mamba/ops/linear.hpp"

/// Projections whose matrices are chosen for each token: ExpertProjection<Routing, Expert>, where an expert is one
/// matrix (ExpertLinear) or a feed-forward layer (ExpertMlp). Experts take rows grouped by expert; their counts are for
/// one row, which goes to one expert.
namespace moe_mamba::inline v0_2 {

/// Experts of one matrix each: y = x Wᵀ with the W of a row's expert. Of y and dx, rows may be scattered (ScatteredRows).
template <int In, int Out, int Experts>
struct ExpertLinear : LayerDefaults {
  static constexpr int in = In, out = Out;

  template <class Bind>
  struct Weights {
    constexpr explicit Weights(Bind& bind, Initializer initializer = Initializer::truncated_normal(0.1, In))
        : weight(bind.stack("weight", Experts, Out, In, initializer, GradientStart::overwrite)) {}
    typename Bind::Stack weight;  // (E, Out, In)
  };

  static constexpr Index active_parameters = Index{In} * Out;
  static constexpr double flops_per_token = 2.0 * active_parameters;
  template <class C>
  static std::size_t thread_scratch(const auto& device, Shape shape, bool training) {
    return linear_thread_scratch<C>(device, shape.tokens(), Index{In}, Index{Out}, training);
  }

  template <class Device, class S, class C>
  static void forward(const Forward<Device, S, C>& run, const auto& w, Groups groups, NoBuffers, Input<C> x,
                      const auto& y) {
    grouped_linear(run.device, groups, x, w.weight, y);
  }

  template <class Device, class S, class C>
  static void backward(const Backward<Device, S, C>& run, const auto& w, const auto& g, Groups groups, NoBuffers,
                       NoBuffers, MatrixView<C> x, MatrixView<C> dy, const auto& dx, Into into = Into::assign) {
    grouped_linear_backward_weight<S>(run.device, groups, dy, x, g.weight, run.begins ? Into::assign : Into::add);
    grouped_linear_backward_input(run.device, groups, dy, w.weight, dx, into);
  }
};

/// Experts that are feed-forward layers without biases, as MlpLayer: down(f(up(x))), or down(f(gate(x)) · up(x)).
template <int In, int Hidden, int Out, int Experts, class Activation>
struct ExpertMlp : LayerDefaults {
  static constexpr int in = In, out = Out;
  static constexpr int rows = Activation::gated ? 2 * Hidden : Hidden;
  using Up = ExpertLinear<In, rows, Experts>;
  using Down = ExpertLinear<Hidden, Out, Experts>;

  template <class Bind>
  struct Weights {
    constexpr explicit Weights(Bind& bind, const RoutingOptions& options = {})
        : up(bind.template block<Up>("up.", options.initializer(In))),
          down(bind.template block<Down>(
              "down.", options.initializer(options.joint_fan_in ? Index{Experts} * Hidden : Index{Hidden}))) {}
    typename Up::template Weights<Bind> up;      // (E, H or 2H, In)
    typename Down::template Weights<Bind> down;  // (E, Out, H)
  };

  static constexpr Index active_parameters = Up::active_parameters + Down::active_parameters;
  static constexpr double flops_per_token = Up::flops_per_token + Down::flops_per_token;
  template <class C>
  static std::size_t thread_scratch(const auto& device, Shape shape, bool training) {
    return LayerOf<Up, Down>::template thread_scratch<C>(device, shape, training);
  }

  template <class C>
  struct Saved {
    template <class Device>
    constexpr Saved(Arena& arena, Device&, Shape shape)
        : hidden(arena.rows<C>(shape.tokens(), rows)), active(arena.rows<C>(shape.tokens(), Hidden)) {}
    MatrixView<C> hidden;  // (T·K, H or 2H): before the activation
    MatrixView<C> active;  // (T·K, H)
  };

  template <class C>
  struct BackwardScratch {
    template <class Device>
    BackwardScratch(Arena& arena, Device&, Shape shape)
        : dhidden(arena.rows<C>(shape.tokens(), rows)), dactive(arena.rows<C>(shape.tokens(), Hidden)) {}
    MatrixView<C> dhidden;  // (T·K, H or 2H)
    MatrixView<C> dactive;  // (T·K, H)
  };

  template <class Device, class S, class C>
  static void forward(const Forward<Device, S, C>& run, const auto& w, Groups groups, const Saved<C>& saved, Input<C> x,
                      const auto& y) {
    Up::forward(run, w.up, groups, NoBuffers(), x, saved.hidden);
    grouped_activate(run.device, groups, Activation{}, saved.hidden, saved.active);
    Down::forward(run, w.down, groups, NoBuffers(), saved.active, y);
  }

  template <class Device, class S, class C>
  static void backward(const Backward<Device, S, C>& run, const auto& w, const auto& g, Groups groups,
                       const Saved<C>& saved, const BackwardScratch<C>& scratch, MatrixView<C> x, MatrixView<C> dy,
                       const auto& dx, Into into = Into::assign) {
    Down::backward(run, w.down, g.down, groups, NoBuffers(), NoBuffers(), saved.active, dy, scratch.dactive);
    grouped_activate_backward(run.device, groups, Activation{}, saved.hidden, scratch.dactive, scratch.dhidden);
    Up::backward(run, w.up, g.up, groups, NoBuffers(), NoBuffers(), x, scratch.dhidden, dx, into);
  }
};

/// How a projection uses the gates of its routing.
enum class GateUse {
  weight,     ///< the outputs of a token's experts are weighted by them
  selection,  ///< the outputs are added up unweighted; the router gets no gradient from the projection
};

/// Each token goes to the K experts that a Routing chose for it; their outputs are added up. Several projections may
/// use one routing: the gradient with respect to its gates is the sum of theirs.
template <class Routing, class Expert, GateUse Use = GateUse::weight>
struct ExpertProjection : LayerDefaults {
  template <class Bind>
  using Weights = typename Expert::template Weights<Bind>;

  static constexpr Index active_parameters = Routing::K * Expert::active_parameters;
  static constexpr double flops_per_token = Routing::K * Expert::flops_per_token;
  static constexpr bool takes_packed = true;

  /// The shape of the experts' rows for a batch: one row per assignment.
  template <class Device>
  static constexpr Shape rows(Device&, Shape shape) {
    return {1, shape.tokens() * Routing::K};
  }

  template <class C>
  static std::size_t thread_scratch(const auto& device, Shape shape, bool training) {
    return moe_mamba::thread_scratch<Expert, C>(device, rows(device, shape), training);
  }

  /// Whether each token has one row, so that rows go straight to tokens where gates do not weight them.
  static constexpr bool is_one_to_one = Routing::K == 1 && Routing::is_dropless;

  template <class C>
  struct Saved {
    template <class Device>
    constexpr Saved(Arena& arena, Device& device, Shape shape)
        : x(arena.rows<C>(rows(device, shape).tokens(), Expert::in)),
          expert(arena, device, rows(device, shape)),
          y(arena.rows<C>(weights_outputs ? rows(device, shape).tokens() : 0, Expert::out)) {}
    MatrixView<C> x;  // (T·K, In): in the order of the experts
    typename Expert::template Saved<C> expert;
    MatrixView<C> y;  // (T·K, Out): in the order of the experts, where the gradient of the gates needs it
  };

  template <class C>
  struct ForwardScratch {
    template <class Device>
    ForwardScratch(Arena& arena, Device& device, Shape shape)
        : y(arena.rows<C>(weights_outputs ? 0 : rows(device, shape).tokens(), Expert::out)) {}
    MatrixView<C> y;  // (T·K, Out): the same where it does not
  };

  template <class C>
  struct BackwardScratch {
    template <class Device>
    BackwardScratch(Arena& arena, Device& device, Shape shape)
        : dy(arena.rows<C>(rows(device, shape).tokens(), Expert::out)),
          dx(arena.rows<C>(rows(device, shape).tokens(), Expert::in)),
          expert(arena, device, rows(device, shape)) {}
    MatrixView<C> dy;  // (T·K, Out)
    MatrixView<C> dx;  // (T·K, In)
    typename Expert::template BackwardScratch<C> expert;
  };

  /// (T, In) → (T, Out), according to `routed`.
  template <class Device, class S, class C>
  static void forward(const Forward<Device, S, C>& run, const auto& w,
                      const typename Routing::template Saved<C>& routed, const Saved<C>& saved,
                      const ForwardScratch<C>& scratch, Input<C> x, MatrixView<C> y, Into into = Into::assign) {
    gather_rows(run.device, routed.groups(), x, routed.source, saved.x);
    const MatrixView<C> ordered = weights_outputs ? saved.y : scratch.y;
    if constexpr (is_one_to_one && !weights_outputs) {
      if (into == Into::assign) {
        const ScatteredRows<C> scattered{y, routed.source, ordered};
        return Expert::forward(run, w, routed.groups(), saved.expert, saved.x, scattered);
      }
    }
    Expert::forward(run, w, routed.groups(), saved.expert, saved.x, ordered);
    combine_rows(run.device, ordered, routed.slots, Index{Routing::K}, gates(routed), y, into);
  }

  template <class Device, class S, class C>
  static void backward(const Backward<Device, S, C>& run, const auto& w, const auto& g,
                       const typename Routing::template Saved<C>& routed, GateGradient<C>& dgates,
                       const Saved<C>& saved, const BackwardScratch<C>& scratch, Input<C> dy, MatrixView<C> dx,
                       Into into = Into::assign) {
    const auto gather = [&](compute_t<C>* to) {
      combine_rows_backward(run.device, saved.y, routed.slots, Index{Routing::K}, gates(routed), dy, scratch.dy, to);
    };
    if constexpr (weights_outputs) {
      dgates.accumulate(run.device, gather);
    } else {
      gather(nullptr);
    }
    const auto backward_to = [&](const auto& to, Into how) {
      Expert::backward(run, w, g, routed.groups(), saved.expert, scratch.expert, saved.x, scratch.dy, to, how);
    };
    if constexpr (is_one_to_one) {
      backward_to(ScatteredRows<C>{dx, routed.source, scratch.dx}, into);
    } else {
      backward_to(scratch.dx, Into::assign);
      combine_rows(run.device, scratch.dx, routed.slots, Index{Routing::K}, nullptr, dx, into);
    }
  }

 private:
  static constexpr bool weights_outputs = Use == GateUse::weight;
  static constexpr const auto* gates(const auto& routed) { return weights_outputs ? routed.gates : nullptr; }
};

}  // namespace moe_mamba::inline v0_2
