#pragma once

#include <algorithm>

#include "moe_mamba/blocks/layer_of.hpp"
#include "moe_mamba/ops/elementwise.hpp"

namespace moe_mamba::inline v0_2 {

/// Two layers that read the same input; their outputs are added ("Parallel MoE-Mamba", Pióro et al. 2024, section 4.4).
template <int D, class First, class Second>
struct ParallelLayer : LayerOf<First, Second> {
  template <class Bind>
  struct Weights {
    constexpr explicit Weights(Bind& bind)
        : first(bind.template block<First>("0.")), second(bind.template block<Second>("1.")) {}
    typename First::template Weights<Bind> first;
    typename Second::template Weights<Bind> second;
  };

  template <class C>
  struct Saved {
    template <class Device>
    constexpr Saved(Arena& arena, Device& device, Shape shape)
        : first(arena, device, shape), second(arena, device, shape) {}
    typename First::template Saved<C> first;
    typename Second::template Saved<C> second;
  };

  template <class C>
  struct ForwardScratch {
    template <class Device>
    ForwardScratch(Arena& arena, Device& device, Shape shape)
        : rows(arena.rows<C>(shape.tokens(), D)),
          layer(arena.block(std::max(bytes_of<typename First::template ForwardScratch<C>>(device, shape),
                                     bytes_of<typename Second::template ForwardScratch<C>>(device, shape)))) {}
    MatrixView<C> rows;  // (T, D): the second layer's output
    Arena layer;         // one layer's at a time
  };

  template <class C>
  struct BackwardScratch {
    template <class Device>
    BackwardScratch(Arena& arena, Device& device, Shape shape)
        : rows(arena.rows<C>(shape.tokens(), D)),
          layer(arena.block(std::max(bytes_of<typename First::template BackwardScratch<C>>(device, shape),
                                     bytes_of<typename Second::template BackwardScratch<C>>(device, shape)))) {}
    MatrixView<C> rows;  // (T, D): the gradient with respect to the second layer's input
    Arena layer;
  };

  template <class Device, class S, class C>
  static void forward(Forward<Device, S, C> run, const auto& w, const Saved<C>& saved, MatrixView<const C> x,
                      MatrixView<C> y) {
    const ForwardScratch<C> scratch(run.scratch, run.device, run.shape);
    run.scratch = scratch.layer;
    First::forward(run, w.first, saved.first, x, y);
    Second::forward(run.template after<First>(), w.second, saved.second, x, scratch.rows);
    add(run.device, scratch.rows, y);
  }

  template <class Device, class S, class C>
  static void backward(Backward<Device, S, C> run, const auto& w, const auto& g, const Saved<C>& saved,
                       MatrixView<const C> x, MatrixView<const C> dy, MatrixView<C> dx) {
    const BackwardScratch<C> scratch(run.scratch, run.device, run.shape);
    run.scratch = scratch.layer;
    First::backward(run, w.first, g.first, saved.first, x, dy, dx);
    Second::backward(run.template after<First>(), w.second, g.second, saved.second, x, dy, scratch.rows);
    add(run.device, scratch.rows, dx);
  }
};

}  // namespace moe_mamba::inline v0_2
