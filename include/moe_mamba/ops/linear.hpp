#pragma once

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/reference.hpp"

/// Matrix products with weights stored [out, in], as public checkpoints store them.
///
/// On every backend, found by its device argument (T tokens, I in, O out, G groups; S the type of weights, C that of activations,
/// where x and y may be of two types):
///
///   linear(device, x, weight, y)                            y = x Wᵀ                 (T, I) (O, I) → (T, O)
///   linear_backward_input(device, dy, weight, dx, into)     dx = dy W  or  dx += …   (T, O) (O, I) → (T, I)
///   linear_backward_weight<S>(device, dy, x, dweight)       dW += dyᵀ x              (T, O) (T, I) → (O, I)
///   grouped_linear…(device, groups, …)                      the same three, row t with the matrix of its group; that of
///                                                           the weights has `into` at its end
///   add_bias(device, bias, y)                               y += bias, for each row
///   bias_backward(device, dy, dbias)                        dbias += the sum of dy's rows
///
/// A backend may round the factors of a product to S, which weights are stored in: the activations and gradients that
/// weights are multiplied by, and both factors of a gradient of weights, which is told S because nothing else there says
/// so. Sums are in compute_t<C>, gradients of weights too, and where S is C
/// nothing is rounded but what is written. The CPU and the reference round nothing.
///
/// Outputs must not overlap inputs. Sums run over the inner index in an order that depends on the inner size alone, so a
/// row's result does not change with the other rows of the same call nor with the number of threads; calls of at most
/// a few rows may take another order than larger ones. On a CUDA device the order of an ungrouped product is cuBLAS's,
/// which may be another one for another number of rows.
namespace moe_mamba {

/// Whether an operation overwrites its output or adds to it.
enum class Into { assign, add };

/// Rows sorted by group: those of group g are rows offsets[g] … offsets[g + 1] - 1 (offsets has count + 1 entries).
struct Groups {
  const Index* offsets = nullptr;
  Index count = 0;
};

/// One matrix [rows, columns] for each group, one after the other.
template <class T>
struct MatrixStack {
  T* data = nullptr;
  Index rows = 0;
  Index columns = 0;

  constexpr MatrixView<T> operator[](Index group) const {
    return {data + group * rows * columns, rows, columns, columns};
  }
};

namespace reference {

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

}  // namespace reference
}  // namespace moe_mamba
