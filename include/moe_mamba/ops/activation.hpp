#pragma once

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/linear.hpp"
#include "moe_mamba/ops/reference.hpp"

/// Activations of feed-forward layers.
///
///   activate(device, Activation{}, h, a)                      a = f(h)              (T, H) → (T, H)
///                                                             a = f(gate) · up      (T, 2H) → (T, H), h = [gate | up]
///   activate_backward(device, Activation{}, h, da, dh)        dh = da ∂a/∂h, overwritten
///   grouped_activate…(device, groups, …)                      the same two for the rows of all groups; rows behind them
///                                                             are left alone
///
/// where Activation is one of the types below, or a user's own of the same form: `gated`, `value(x)` and
/// `derivative(x)`.
namespace moe_mamba {

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

namespace reference {

template <class Activation, class C>
void activate(Device&, Activation, Input<C> h, MatrixView<C> a) {
  for (Index t = 0; t < a.rows; ++t) {
    for (Index i = 0; i < a.columns; ++i) {
      const double value = Activation::value(double(h(t, i)));
      if constexpr (Activation::gated) {
        a(t, i) = C(value * double(h(t, a.columns + i)));
      } else {
        a(t, i) = C(value);
      }
    }
  }
}

template <class Activation, class C>
void activate_backward(Device&, Activation, Input<C> h, Input<C> da, MatrixView<C> dh) {
  for (Index t = 0; t < da.rows; ++t) {
    for (Index i = 0; i < da.columns; ++i) {
      const double x = double(h(t, i)), gradient = double(da(t, i));
      if constexpr (Activation::gated) {
        const double up = double(h(t, da.columns + i));
        dh(t, i) = C(gradient * up * Activation::derivative(x));
        dh(t, da.columns + i) = C(gradient * Activation::value(x));
      } else {
        dh(t, i) = C(gradient * Activation::derivative(x));
      }
    }
  }
}

template <class Activation, class C>
void grouped_activate(Device& device, Groups groups, Activation activation, Input<C> h, MatrixView<C> a) {
  const Index rows = groups.offsets[groups.count];
  activate(device, activation, h.row_block(0, rows), a.row_block(0, rows));
}

template <class Activation, class C>
void grouped_activate_backward(Device& device, Groups groups, Activation activation, Input<C> h, Input<C> da,
                               MatrixView<C> dh) {
  const Index rows = groups.offsets[groups.count];
  activate_backward(device, activation, h.row_block(0, rows), da.row_block(0, rows), dh.row_block(0, rows));
}

}  // namespace reference
}  // namespace moe_mamba
