#pragma once

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/linear.hpp"
#include "moe_mamba/reference/device.hpp"

/// The reference of ops/linear.hpp.
namespace moe_mamba::inline v0_2::reference {

template <class X, class C, class S>
void linear(Device&, MatrixView<X> x, MatrixView<const S> weight, MatrixView<C> y) {
  for (Index t = 0; t < x.rows; ++t) {
    for (Index o = 0; o < weight.rows; ++o) {
      double sum = 0;
      for (Index i = 0; i < weight.columns; ++i) sum += double(x(t, i)) * double(weight(o, i));
      y(t, o) = C(sum);
    }
  }
}

template <class Y, class C, class S>
void linear_backward_input(Device&, MatrixView<Y> dy, MatrixView<const S> weight, MatrixView<C> dx, Into into) {
  for (Index t = 0; t < dy.rows; ++t) {
    for (Index i = 0; i < weight.columns; ++i) {
      double sum = into == Into::add ? double(dx(t, i)) : 0.0;
      for (Index o = 0; o < weight.rows; ++o) sum += double(dy(t, o)) * double(weight(o, i));
      dx(t, i) = C(sum);
    }
  }
}

template <class S, class Y, class X, class C>
void linear_backward_weight(Device&, MatrixView<Y> dy, MatrixView<X> x, MatrixView<C> dweight) {
  for (Index o = 0; o < dweight.rows; ++o) {
    for (Index i = 0; i < dweight.columns; ++i) {
      double sum = double(dweight(o, i));
      for (Index t = 0; t < x.rows; ++t) sum += double(dy(t, o)) * double(x(t, i));
      dweight(o, i) = C(sum);
    }
  }
}

template <class C, class S>
void grouped_linear(Device& device, Groups groups, Input<C> x, MatrixStack<const S> weight, MatrixView<C> y) {
  for (Index g = 0; g < groups.count; ++g) {
    const Index first = groups.offsets[g], count = groups.offsets[g + 1] - first;
    linear(device, x.row_block(first, count), weight[g], y.row_block(first, count));
  }
}

template <class C, class S>
void grouped_linear_backward_input(Device& device, Groups groups, Input<C> dy, MatrixStack<const S> weight,
                                   MatrixView<C> dx, Into into) {
  for (Index g = 0; g < groups.count; ++g) {
    const Index first = groups.offsets[g], count = groups.offsets[g + 1] - first;
    linear_backward_input(device, dy.row_block(first, count), weight[g], dx.row_block(first, count), into);
  }
}

template <class C, class S>
void grouped_linear(Device& device, Groups groups, Input<C> x, MatrixStack<const S> weight, ScatteredRows<C> y) {
  for (Index g = 0; g < groups.count; ++g) {
    for (Index s = groups.offsets[g]; s < groups.offsets[g + 1]; ++s) {
      linear(device, x.row_block(s, 1), weight[g], y.to.row_block(y.places[s], 1));
    }
  }
}

template <class C, class S>
void grouped_linear_backward_input(Device& device, Groups groups, Input<C> dy, MatrixStack<const S> weight,
                                   ScatteredRows<C> dx, Into into) {
  for (Index g = 0; g < groups.count; ++g) {
    for (Index s = groups.offsets[g]; s < groups.offsets[g + 1]; ++s) {
      linear_backward_input(device, dy.row_block(s, 1), weight[g], dx.to.row_block(dx.places[s], 1), into);
    }
  }
}

template <class S, class Y, class X, class C>
void grouped_linear_backward_weight(Device& device, Groups groups, MatrixView<Y> dy, MatrixView<X> x,
                                    MatrixStack<C> dweight, Into into) {
  for (Index g = 0; g < groups.count; ++g) {
    const Index first = groups.offsets[g], count = groups.offsets[g + 1] - first;
    for (Index i = 0; i < dweight.rows * dweight.columns && into == Into::assign; ++i) dweight[g].data[i] = C(0);
    linear_backward_weight<S>(device, dy.row_block(first, count), x.row_block(first, count), dweight[g]);
  }
}

template <class C, class S>
void add_bias(Device&, const S* bias, MatrixView<C> y) {
  for (Index t = 0; t < y.rows; ++t) {
    for (Index o = 0; o < y.columns; ++o) y(t, o) = C(double(y(t, o)) + double(bias[o]));
  }
}

template <class Y, class C>
void bias_backward(Device&, MatrixView<Y> dy, C* dbias) {
  for (Index o = 0; o < dy.columns; ++o) {
    double sum = double(dbias[o]);
    for (Index t = 0; t < dy.rows; ++t) sum += double(dy(t, o));
    dbias[o] = C(sum);
  }
}

}  // namespace moe_mamba::inline v0_2::reference
