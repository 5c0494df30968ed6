#pragma once

#include "moe_mamba/blocks/layer_of.hpp"
#include "moe_mamba/blocks/projection.hpp"
#include "moe_mamba/ops/activation.hpp"

namespace moe_mamba::inline v0_2 {

/// Feed-forward layer without biases: down(f(up(x))), or down(f(gate(x)) · up(x)) with a gated activation, whose up
/// matrix has the rows of the gate first. Several experts of hidden width FanIn can be one such layer.
template <int D, int H, class Activation, int FanIn = H>
struct MlpLayer : LayerDefaults {
  static constexpr int rows = Activation::gated ? 2 * H : H;

  using Up = Projection<D, rows>;
  using Down = Projection<H, D>;
  using Sum = LayerOf<Up, Down>;

  template <class Bind>
  struct Weights {
    constexpr explicit Weights(Bind& bind)
        : up(bind.template block<Up>("up.", Initializer::truncated_normal(0.1, D))),
          down(bind.template block<Down>("down.", Initializer::truncated_normal(0.1, FanIn))) {}
    typename Up::template Weights<Bind> up;      // (H or 2H, D)
    typename Down::template Weights<Bind> down;  // (D, H)
  };

  static constexpr Index active_parameters = Sum::active_parameters;
  static constexpr double flops_per_token = Sum::flops_per_token;
  static constexpr bool takes_packed = true;
  template <class C>
  static std::size_t thread_scratch(const auto& device, Shape shape, bool training) {
    return Sum::template thread_scratch<C>(device, shape, training);
  }

  template <class C>
  struct Saved {
    template <class Device>
    constexpr Saved(Arena& arena, Device&, Shape shape)
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
    Up::forward(run, w.up, x, saved.hidden);
    activate(run.device, Activation{}, saved.hidden, saved.active);
    Down::forward(run, w.down, saved.active, y);
  }

  template <class Device, class S, class C>
  static void backward(Backward<Device, S, C> run, const auto& w, const auto& g, const Saved<C>& saved,
                       MatrixView<const C> x, MatrixView<const C> dy, MatrixView<C> dx) {
    const BackwardScratch<C> scratch(run.scratch, run.device, run.shape);
    Down::backward(run, w.down, g.down, saved.active, dy, scratch.dactive);
    activate_backward(run.device, Activation{}, saved.hidden, scratch.dactive, scratch.dhidden);
    Up::backward(run, w.up, g.up, x, scratch.dhidden, dx);
  }
};

}  // namespace moe_mamba::inline v0_2
