#pragma once

#include "moe_mamba/blocks/layer.hpp"
#include "moe_mamba/ops/activation.hpp"
#include "moe_mamba/ops/linear.hpp"

namespace moe_mamba {

/// Feed-forward layer without biases: down(f(up(x))), or down(f(gate(x)) · up(x)) with a gated activation, whose up
/// matrix holds the rows of the gate first. Several experts of a hidden width of FanIn are one such layer.
template <int D, int H, class Activation, int FanIn = H>
struct MlpLayer : LayerDefaults {
  static constexpr int rows = Activation::gated ? 2 * H : H;

  template <class Bind>
  struct Weights {
    constexpr explicit Weights(Bind& bind)
        : up(bind.matrix("up.weight", rows, D, Initializer::truncated_normal(0.1, D))),
          down(bind.matrix("down.weight", D, H, Initializer::truncated_normal(0.1, FanIn))) {}
    typename Bind::Matrix up;    // (H or 2H, D)
    typename Bind::Matrix down;  // (D, H)
  };

  static constexpr Index active_parameters = parameters_of<MlpLayer>;
  static constexpr double flops_per_token = 2.0 * active_parameters;
  static constexpr bool takes_packed = true;

  template <class C>
  struct Saved {
    constexpr Saved(Arena& arena, Shape shape)
        : hidden(arena.rows<C>(shape.tokens(), rows)), active(arena.rows<C>(shape.tokens(), H)) {}
    MatrixView<C> hidden;  // (T, H or 2H): before the activation
    MatrixView<C> active;  // (T, H)
  };

  template <class C>
  struct BackwardScratch {
    template <class Device>
    BackwardScratch(Arena& arena, Device&, Shape shape)
        : dactive(arena.rows<C>(shape.tokens(), H)), dhidden(arena.rows<C>(shape.tokens(), rows)) {}
    MatrixView<C> dactive;  // (T, H)
    MatrixView<C> dhidden;  // (T, H or 2H)
  };

  template <class Device, class S, class C>
  static void forward(Forward<Device, S, C> run, const auto& w, const Saved<C>& saved, MatrixView<const C> x,
                      MatrixView<C> y) {
    linear(run.device, x, w.up, saved.hidden);
    activate(run.device, Activation{}, saved.hidden, saved.active);
    linear(run.device, saved.active, w.down, y);
  }

  template <class Device, class S, class C>
  static void backward(Backward<Device, S, C> run, const auto& w, const auto& g, const Saved<C>& saved,
                       MatrixView<const C> x, MatrixView<const C> dy, MatrixView<C> dx) {
    const BackwardScratch<C> scratch(run.scratch, run.device, run.shape);
    linear_backward_weight<S>(run.device, dy, saved.active, g.down);
    linear_backward_input(run.device, dy, w.down, scratch.dactive, Into::assign);
    activate_backward(run.device, Activation{}, saved.hidden, scratch.dactive, scratch.dhidden);
    linear_backward_weight<S>(run.device, scratch.dhidden, x, g.up);
    linear_backward_input(run.device, scratch.dhidden, w.up, dx, Into::assign);
  }
};

}  // namespace moe_mamba
