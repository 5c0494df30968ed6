#pragma once

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/activation.hpp"
#include "moe_mamba/reference/device.hpp"
#include "moe_mamba/reference/linear.hpp"

/// The reference of ops/activation.hpp.
namespace moe_mamba::inline v0_2::reference {

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

}  // namespace moe_mamba::inline v0_2::reference
