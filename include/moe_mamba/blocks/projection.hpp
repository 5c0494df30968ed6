#pragma once

#include "moe_mamba/blocks/layer.hpp"
#include "moe_mamba/ops/linear.hpp"

namespace moe_mamba::inline v0_2 {

/// The weights of a projection of any size, or the gradients with respect to them.
template <class Bind>
struct ProjectionWeights {
  typename Bind::Matrix weight;  // (Out, In)
  typename Bind::Vector bias;    // (Out) or null
};

namespace detail {

/// The passes of a projection, instantiated once for all sizes.
template <bool HasBias>
struct ProjectionPasses : LayerDefaults {
  template <class Device, class S, class C, class Bind, class X, class Y>
  static void forward(const Forward<Device, S, C>& run, const ProjectionWeights<Bind>& w, MatrixView<X> x,
                      MatrixView<Y> y) {
    linear(run.device, x, w.weight, y);
    if constexpr (HasBias) add_bias(run.device, w.bias, y);
  }

  /// dx is overwritten or accumulated into.
  template <class Device, class S, class C, class Bind, class BindGradients, class X, class Y>
  static void backward(const Backward<Device, S, C>& run, const ProjectionWeights<Bind>& w,
                       const ProjectionWeights<BindGradients>& g, MatrixView<X> x, MatrixView<Y> dy, MatrixView<C> dx,
                       Into into = Into::assign) {
    linear_backward_weight<S>(run.device, dy, x, g.weight);
    if constexpr (HasBias) bias_backward(run.device, dy, g.bias);
    linear_backward_input(run.device, dy, w.weight, dx, into);
  }
};

}  // namespace detail

/// A linear layer, with or without bias: y = x Wᵀ + b, (T, In) → (T, Out).
template <int In, int Out, bool HasBias = false>
struct Projection : detail::ProjectionPasses<HasBias> {
  template <class Bind>
  struct Weights : ProjectionWeights<Bind> {
    constexpr explicit Weights(Bind& bind, Initializer initializer = Initializer::uniform(In))
        : ProjectionWeights<Bind>{bind.matrix("weight", Out, In, initializer),
                                  bind.vector_if(HasBias, "bias", Out, ParameterKind::bias, Initializer::zeros())} {}
  };

  static constexpr Index active_parameters = parameters_of<Projection>;
  static constexpr double flops_per_token = 2.0 * Out * In;
  static constexpr bool takes_packed = true;
  template <class C>
  static std::size_t thread_scratch(const auto& device, Shape shape, bool training) {
    return linear_thread_scratch<C>(device, shape.tokens(), Index{In}, Index{Out}, training);
  }
};

}  // namespace moe_mamba::inline v0_2
