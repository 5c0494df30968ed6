#pragma once

#include "moe_mamba/blocks/layer.hpp"
#include "moe_mamba/ops/causal_convolution.hpp"

namespace moe_mamba::inline v0_2 {

/// The short causal depthwise convolution of Mamba with SiLU, (T, Channels) → (T, Channels); see
/// ops/causal_convolution.hpp. A sequence carries its last Taps - 1 inputs.
template <int Channels, int Taps, bool HasBias = true>
struct DepthwiseConvolution : LayerDefaults {
  template <class Bind>
  struct Weights {
    constexpr explicit Weights(Bind& bind)
        : weight(bind.stack("weight", Channels, 1, Taps, Initializer::uniform(Taps))),
          bias(bind.vector_if(HasBias, "bias", Channels, ParameterKind::bias, Initializer::uniform(Taps))) {}
    typename Bind::Stack weight;  // (Channels, 1, Taps)
    typename Bind::Vector bias;   // (Channels) or null
  };

  static constexpr Index active_parameters = parameters_of<DepthwiseConvolution>;
  static constexpr double flops_per_token = 2.0 * Taps * Channels;
  static constexpr Index state_size = Index{Taps - 1} * Channels;
  static constexpr bool takes_packed = true;
  template <class C>
  static constexpr std::size_t thread_scratch(const auto&, Shape, bool) {
    return 0;
  }

  template <class C>
  struct Saved {
    template <class Device>
    constexpr Saved(Arena& arena, Device&, Shape shape) : state(arena.rows<compute_t<C>>(shape.batch, state_size)) {}
    MatrixView<compute_t<C>> state;  // (B, (Taps - 1) · Channels): the initial states
  };

  template <class Device, class S, class C>
  static void forward(const Forward<Device, S, C>& run, const auto& w, const Saved<C>& saved, Input<C> x,
                      MatrixView<C> y) {
    causal_convolution(run.device, CausalConvolution<C, S, Taps>{.shape = run.shape,
                                                                 .x = x,
                                                                 .weight = w.weight.data,
                                                                 .bias = w.bias,
                                                                 .state = run.state,
                                                                 .saved_state = saved.state.data,
                                                                 .y = y});
  }

  /// dx is overwritten and must not overlap dy.
  template <class Device, class S, class C>
  static void backward(const Backward<Device, S, C>& run, const auto& w, const auto& g, const Saved<C>& saved,
                       Input<C> x, Input<C> dy, MatrixView<C> dx) {
    causal_convolution_backward(run.device, CausalConvolutionBackward<C, S, Taps>{.shape = run.shape,
                                                                                  .x = x,
                                                                                  .weight = w.weight.data,
                                                                                  .bias = w.bias,
                                                                                  .saved_state = saved.state.data,
                                                                                  .dy = dy,
                                                                                  .dx = dx,
                                                                                  .dweight = g.weight.data,
                                                                                  .dbias = g.bias,
                                                                                  .dstate = run.dstate});
  }
};

}  // namespace moe_mamba::inline v0_2
