#pragma once

#include <type_traits>

#include "moe_mamba/layers/layer.hpp"
#include "moe_mamba/layers/options.hpp"
#include "moe_mamba/ops/elementwise.hpp"
#include "moe_mamba/ops/norm.hpp"

/// Norms. Like layers, but their backward pass adds to dx, which is the gradient of the residual stream, and what goes in
/// (x and dx) may be of another type than what comes out (y and dy): the stream is in the compute type. A norm may have
/// forward_joined(run, w, saved, Joined, y) besides, which first adds what a layer before it left to be added to the stream.
namespace moe_mamba {

/// RMSNorm (Zhang & Sennrich 2019), with a gain or without; see ops/norm.hpp.
template <int W, bool HasGain, int EpsilonNumerator, int EpsilonDenominator>
struct RmsNormLayer : LayerDefaults {
  template <class Bind>
  struct Weights {
    constexpr explicit Weights(Bind& bind)
        : gain(bind.vector_if(HasGain, "weight", W, ParameterKind::gain, {Initial::Law::ones})) {}
    typename Bind::Vector gain;  // (W)
  };
  static constexpr Index active_parameters = parameters_of<RmsNormLayer>;
  static constexpr double epsilon = static_cast<double>(EpsilonNumerator) / EpsilonDenominator;

  template <class C>
  struct Saved {
    constexpr Saved(Arena& arena, Shape shape) : inverse(arena.take<compute_t<C>>(shape.tokens())) {}
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
template <int W, int EpsilonNumerator, int EpsilonDenominator>
struct LayerNormLayer : LayerDefaults {
  template <class Bind>
  struct Weights {
    constexpr explicit Weights(Bind& bind)
        : gain(bind.vector("weight", W, ParameterKind::gain, {Initial::Law::ones})),
          bias(bind.vector("bias", W, ParameterKind::bias, {Initial::Law::zeros})) {}
    typename Bind::Vector gain, bias;  // (W)
  };
  static constexpr Index active_parameters = parameters_of<LayerNormLayer>;
  static constexpr double epsilon = static_cast<double>(EpsilonNumerator) / EpsilonDenominator;

  template <class C>
  struct Saved {
    constexpr Saved(Arena& arena, Shape shape)
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

namespace detail {

template <class Norm, class Option, bool TakesNoGain>
struct NormTakes {
  static_assert(is_ratio_option<Epsilon, Option> || (TakesNoGain && std::is_same_v<Option, NoGain>),
                "RmsNorm and LayerNorm take the option Epsilon<numerator, denominator>, RmsNorm NoGain as well, and no "
                "other: NormTakes<norm, option, is NoGain allowed>");
};

/// The epsilon of a norm, options checked.
template <class Norm, bool TakesNoGain, class... Options>
consteval Ratio norm_epsilon() {
  check<NormTakes<Norm, Options, TakesNoGain>...>();
  check<OptionGivenOnce<Norm, NoGain, (0 + ... + int(std::is_same_v<Options, NoGain>))>>();
  check_ratio_option<Norm, Epsilon, 1, Options...>();
  return option_ratio<Epsilon, Options...>({1, 100'000});
}

}  // namespace detail

/// x / sqrt(mean(x²) + epsilon) · gain. Options: Epsilon<1, 100000>; NoGain: without the gain.
template <class... Options>
struct RmsNorm {
  static constexpr bool is_norm = true;
  static constexpr detail::Ratio epsilon = detail::norm_epsilon<RmsNorm, true, Options...>();
  static constexpr bool gain = !detail::is_one_of<NoGain, Options...>;
  template <int W>
  using Layer = RmsNormLayer<W, gain, epsilon.numerator, epsilon.denominator>;
};

/// (x - mean) / sqrt(variance + epsilon) · gain + bias. Options: Epsilon<1, 100000>.
template <class... Options>
struct LayerNorm {
  static constexpr bool is_norm = true;
  static constexpr detail::Ratio epsilon = detail::norm_epsilon<LayerNorm, false, Options...>();
  template <int W>
  using Layer = LayerNormLayer<W, epsilon.numerator, epsilon.denominator>;
};

/// Nothing where a norm could be.
struct NoNorm {
  static constexpr bool is_norm = true;
  template <int W>
  using Layer = NoNormLayer<W>;
};

}  // namespace moe_mamba
