#pragma once

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/linear.hpp"

/// Activations of feed-forward layers.
///
///   activate(device, Activation{}, h, a)                      a = f(h)              (T, H) → (T, H)
///                                                             a = f(gate) · up      (T, 2H) → (T, H), h = [gate | up]
///   activate_backward(device, Activation{}, h, da, dh)        dh = da ∂a/∂h, overwritten
///   grouped_activate…(device, groups, …)                      the same two for the rows of all groups; rows after them
///                                                             are left unchanged
///
/// where Activation is one of the types below, or a user-defined type with the same members: `gated`, `value(x)` and
/// `derivative(x)`.
namespace moe_mamba::inline v0_2 {

/// max(x, 0); the derivative at 0 is 0.
struct Relu {
  static constexpr bool gated = false;
  template <class T>
  MOE_MAMBA_HOST_DEVICE static T value(T x) {
    return x > T(0) ? x : (x != x ? x : T(0));
  }
  template <class T>
  MOE_MAMBA_HOST_DEVICE static T derivative(T x) {
    return x > T(0) ? T(1) : T(0);
  }
};

/// The square of max(x, 0) (So et al. 2021).
struct SquaredRelu {
  static constexpr bool gated = false;
  template <class T>
  MOE_MAMBA_HOST_DEVICE static T value(T x) {
    return Relu::value(x) * Relu::value(x);
  }
  template <class T>
  MOE_MAMBA_HOST_DEVICE static T derivative(T x) {
    return T(2) * Relu::value(x);
  }
};

/// x · Φ(x), the exact form.
struct Gelu {
  static constexpr bool gated = false;
  template <class T>
  MOE_MAMBA_HOST_DEVICE static T value(T x) {
    return gelu(x);
  }
  template <class T>
  MOE_MAMBA_HOST_DEVICE static T derivative(T x) {
    return gelu_derivative(x);
  }
};

/// x · sigmoid(x)
struct Silu {
  static constexpr bool gated = false;
  template <class T>
  MOE_MAMBA_HOST_DEVICE static T value(T x) {
    return silu(x);
  }
  template <class T>
  MOE_MAMBA_HOST_DEVICE static T derivative(T x) {
    return silu_derivative(x);
  }
};

/// silu(gate) · up (Shazeer 2020): a third matrix.
struct SwiGlu : Silu {
  static constexpr bool gated = true;
};

/// gelu(gate) · up (Shazeer 2020): a third matrix.
struct GeGlu : Gelu {
  static constexpr bool gated = true;
};

}  // namespace moe_mamba::inline v0_2
