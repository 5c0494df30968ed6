#pragma once

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/view.hpp"

/// The short causal depthwise convolution of Mamba, with bias and SiLU. For each sequence and channel e of E, with K
/// taps:
///
///   y_t = silu(bias + Σ_k weight[k] x_{t - (K - 1) + k}),   x before the sequence's start from the running state
///
///   causal_convolution(device, CausalConvolution<C, S, K>{…})
///   causal_convolution_backward(device, CausalConvolutionBackward<C, S, K>{…})
///
/// A running state is the last K - 1 inputs, [K - 1, E], oldest first.
namespace moe_mamba::inline v0_2 {

template <class C, class S, int Taps>
struct CausalConvolution {
  Shape shape;                    // B sequences of L steps, or packed ones; T rows
  MatrixView<const C> x;          // (T, E)
  const S* weight;                // (E, K)
  const S* bias;                  // (E), or null for none
  StateView<compute_t<C>> state;  // (K - 1, E) per sequence: in and out; may be null (zero, dropped)
  compute_t<C>* saved_state;      // (B, K - 1, E): receives a copy of the initial state for the backward pass
  MatrixView<C> y;                // (T, E), must not overlap x

  constexpr CausalConvolution slice(const SequenceRun& run) const {
    return {.shape = run.shape,
            .x = run.rows(x),
            .weight = weight,
            .bias = bias,
            .state = state.from(run.sequence),
            .saved_state = saved_state == nullptr ? nullptr : saved_state + run.sequence * (Taps - 1) * x.columns,
            .y = run.rows(y)};
  }
};

/// Gradients of a scalar loss. dx is overwritten; dweight and dbias are added to.
template <class C, class S, int Taps>
struct CausalConvolutionBackward {
  Shape shape;
  MatrixView<const C> x;  // as in the forward pass
  const S* weight;
  const S* bias;                    // as in the forward pass
  const compute_t<C>* saved_state;  // from the forward pass
  MatrixView<const C> dy;           // (T, E)
  MatrixView<C> dx;                 // (T, E), must not overlap dy
  compute_t<C>* dweight;            // (E, K)
  compute_t<C>* dbias;              // (E), or null if there is no bias
  StateView<compute_t<C>>
      dstate;  // (K - 1, E): with respect to the final state on entry, to the initial one on return; or null

  constexpr CausalConvolutionBackward slice(const SequenceRun& run) const {
    return {.shape = run.shape,
            .x = run.rows(x),
            .weight = weight,
            .bias = bias,
            .saved_state = saved_state + run.sequence * (Taps - 1) * x.columns,
            .dy = run.rows(dy),
            .dx = run.rows(dx),
            .dweight = dweight,
            .dbias = dbias,
            .dstate = dstate.from(run.sequence)};
  }
};

}  // namespace moe_mamba::inline v0_2
