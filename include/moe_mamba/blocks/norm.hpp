#pragma once

#include <type_traits>

#include "moe_mamba/blocks/layer.hpp"
#include "moe_mamba/core/ratio.hpp"
#include "moe_mamba/ops/elementwise.hpp"
#include "moe_mamba/ops/norm.hpp"

/// Norms. Like layers, but their backward pass adds to dx, the gradient with respect to the residual stream, and their
/// input (x and dx) may be of another type than their output (y and dy): the residual stream is in the compute type. A
/// norm may also have forward_joined(run, w, saved, Joined, y), which first performs a deferred residual addition: it
/// adds the output of an earlier layer to the stream.
namespace moe_mamba::inline v0_2 {

/// The options of a norm.
struct NormOptions {
  Ratio epsilon{1, 100'000};
  bool gain = true;  ///< whether an RMSNorm has a gain
};

/// RMSNorm (Zhang & Sennrich 2019), with a gain or without; see ops/norm.hpp.
template <int W, NormOptions Options>
struct RmsNormLayer : LayerDefaults {
  template <class Bind>
  struct Weights {
    constexpr explicit Weights(Bind& bind)
        : gain(bind.vector_if(Options.gain, "weight", W, ParameterKind::gain, Initializer::ones())) {}
    typename Bind::Vector gain;  // (W)
  };
  static constexpr Index active_parameters = parameters_of<RmsNormLayer>;
  static constexpr double epsilon = Options.epsilon.value();
  template <class C>
  static std::size_t thread_scratch(const auto& device, Shape shape, bool training) {
    return training && Options.gain ? norm_thread_scratch<compute_t<C>>(device, shape.tokens(), Index{W}, 1) : 0;
  }

  template <class C>
  struct Saved {
    template <class Device>
    constexpr Saved(Arena& arena, Device&, Shape shape) : inverse(arena.take<compute_t<C>>(shape.tokens())) {}
    compute_t<C>* inverse;  // (T)
  };

  template <class Device, class S, class C, class X, class Y>
  static void forward(Forward<Device, S, C> run, const auto& w, const Saved<C>& saved, MatrixView<const X> x,
                      MatrixView<Y> y) {
    rms_norm(run.device, x, w.gain, epsilon, y, saved.inverse);
  }

  template <class Device, class S, class C, class X>
  static void forward_joined(Forward<Device, S, C> run, const auto& w, const Saved<C>& saved,
                             const Joined<X, C>& joined, MatrixView<C> y) {
    add_rms_norm(run.device, joined, w.gain, epsilon, y, saved.inverse);
  }

  template <class Device, class S, class C, class X, class Y>
  static void backward(Backward<Device, S, C> run, const auto& w, const auto& g, const Saved<C>& saved,
                       MatrixView<const X> x, MatrixView<const Y> dy, MatrixView<X> dx, auto... kept) {
    rms_norm_backward(run.device, x, w.gain, saved.inverse, dy, dx, g.gain, kept...);
  }
};

/// LayerNorm (Ba, Kiros & Hinton 2016) with gain and bias; see ops/norm.hpp.
template <int W, NormOptions Options>
struct LayerNormLayer : LayerDefaults {
  template <class Bind>
  struct Weights {
    constexpr explicit Weights(Bind& bind)
        : gain(bind.vector("weight", W, ParameterKind::gain, Initializer::ones())),
          bias(bind.vector("bias", W, ParameterKind::bias, Initializer::zeros())) {}
    typename Bind::Vector gain, bias;  // (W)
  };
  static constexpr Index active_parameters = parameters_of<LayerNormLayer>;
  static constexpr double epsilon = Options.epsilon.value();
  template <class C>
  static std::size_t thread_scratch(const auto& device, Shape shape, bool training) {
    return training ? norm_thread_scratch<compute_t<C>>(device, shape.tokens(), Index{W}, 2) : 0;
  }

  template <class C>
  struct Saved {
    template <class Device>
    constexpr Saved(Arena& arena, Device&, Shape shape)
        : mean(arena.take<compute_t<C>>(shape.tokens())), inverse(arena.take<compute_t<C>>(shape.tokens())) {}
    compute_t<C>* mean;     // (T)
    compute_t<C>* inverse;  // (T)
  };

  template <class Device, class S, class C, class X, class Y>
  static void forward(Forward<Device, S, C> run, const auto& w, const Saved<C>& saved, MatrixView<const X> x,
                      MatrixView<Y> y) {
    layer_norm(run.device, x, w.gain, w.bias, epsilon, y, saved.mean, saved.inverse);
  }

  template <class Device, class S, class C, class X>
  static void forward_joined(Forward<Device, S, C> run, const auto& w, const Saved<C>& saved,
                             const Joined<X, C>& joined, MatrixView<C> y) {
    add_layer_norm(run.device, joined, w.gain, w.bias, epsilon, y, saved.mean, saved.inverse);
  }

  template <class Device, class S, class C, class X, class Y>
  static void backward(Backward<Device, S, C> run, const auto& w, const auto& g, const Saved<C>& saved,
                       MatrixView<const X> x, MatrixView<const Y> dy, MatrixView<X> dx, auto... kept) {
    layer_norm_backward(run.device, x, w.gain, saved.mean, saved.inverse, dy, dx, g.gain, g.bias, kept...);
  }
};

/// No norm: y = x.
template <int W>
struct NoNormLayer : LayerDefaults {
  static constexpr Index active_parameters = 0;
  template <class C>
  static constexpr std::size_t thread_scratch(const auto&, Shape, bool) {
    return 0;
  }

  template <class Device, class S, class C, class X, class Y>
  static void forward(Forward<Device, S, C> run, NoWeights, NoBuffers, MatrixView<const X> x, MatrixView<Y> y) {
    copy(run.device, x, y);
  }

  template <class Device, class S, class C, class X, class Y>
  static void backward(Backward<Device, S, C> run, NoWeights, NoWeights, NoBuffers, MatrixView<const X>,
                       MatrixView<const Y> dy, MatrixView<X> dx) {
    add(run.device, dy, dx);
  }
};

}  // namespace moe_mamba::inline v0_2
