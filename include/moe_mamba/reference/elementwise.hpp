#pragma once

#include <type_traits>

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/elementwise.hpp"
#include "moe_mamba/reference/device.hpp"

/// The reference of ops/elementwise.hpp.
namespace moe_mamba::inline v0_2::reference {

template <class X, class C>
void copy(Device&, MatrixView<X> x, MatrixView<C> y) {
  for (Index t = 0; t < y.rows; ++t) {
    for (Index i = 0; i < y.columns; ++i) y(t, i) = static_cast<C>(x(t, i));
  }
}

template <class X, class C>
void add(Device&, MatrixView<X> x, MatrixView<C> y) {
  for (Index t = 0; t < y.rows; ++t) {
    for (Index i = 0; i < y.columns; ++i) y(t, i) = C(double(y(t, i)) + double(x(t, i)));
  }
}

template <class C>
void fill(Device&, std::type_identity_t<C> value, MatrixView<C> y) {
  for (Index t = 0; t < y.rows; ++t) {
    for (Index i = 0; i < y.columns; ++i) y(t, i) = value;
  }
}

template <class C>
void scale(Device&, std::type_identity_t<C> factor, MatrixView<C> y) {
  for (Index t = 0; t < y.rows; ++t) {
    for (Index i = 0; i < y.columns; ++i) y(t, i) = C(double(factor) * double(y(t, i)));
  }
}

template <class C>
void squared_error(Device&, Input<C> x, Input<C> target, double scale, MatrixView<C> dx, double* sum) {
  *sum = 0;
  for (Index t = 0; t < x.rows; ++t) {
    for (Index i = 0; i < x.columns; ++i) {
      const double difference = double(x(t, i)) - double(target(t, i));
      *sum += difference * difference;
      if (dx.data != nullptr) dx(t, i) = C(2 * scale * difference);
    }
  }
}

}  // namespace moe_mamba::inline v0_2::reference
