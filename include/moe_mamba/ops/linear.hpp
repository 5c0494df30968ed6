#pragma once

#include "moe_mamba/core/view.hpp"

/// Matrix products with weights stored [out, in], as public checkpoints store them.
///
/// On every backend, selected by the device argument (T tokens, I inputs, O outputs, G groups; S is the type of weights, C that of
/// activations; x and y may have different types):
///
///   linear(device, x, weight, y)                            y = x Wᵀ                 (T, I) (O, I) → (T, O)
///   linear_backward_input(device, dy, weight, dx, into)     dx = dy W  or  dx += …   (T, O) (O, I) → (T, I)
///   linear_backward_weight<S>(device, dy, x, dweight)       dW += dyᵀ x              (T, O) (T, I) → (O, I)
///   grouped_linear…(device, groups, …)                      the same three, row t with the matrix of its group; that of
///                                                           the weights has `into` at its end
///   grouped_linear(device, groups, x, weight, ScatteredRows{…})                            the first two with rows of y or
///   grouped_linear_backward_input(device, groups, dy, weight, ScatteredRows{…}, into)      dx in another order
///   add_bias(device, bias, y)                               y += bias, for each row
///   bias_backward(device, dy, dbias)                        dbias += the sum of dy's rows
///
/// A backend may round the factors of a product to S, the type in which weights are stored: the activations and gradients that are
/// multiplied by weights, and both factors of a weight gradient, which therefore has S as a template argument. Sums and weight
/// gradients are in compute_t<C>; if S is C, only results are rounded. The CPU and the reference do not round factors.
///
/// Outputs must not overlap inputs. Sums over the inner index have an order that depends only on the inner size, so that a row's
/// result does not depend on the other rows of the call nor on the number of threads; calls with a few rows may use another order
/// than larger ones. On a CUDA device the order of an ungrouped product is cuBLAS's, which may depend on the number of rows.
namespace moe_mamba::inline v0_2 {

/// Whether an operation overwrites its output or adds to it.
enum class Into { assign, add };

/// Rows sorted by group: those of group g are rows offsets[g] … offsets[g + 1] - 1 (offsets has count + 1 entries).
struct Groups {
  const Index* offsets = nullptr;
  Index count = 0;
};

/// Where the rows of a grouped product go whose order shall not be that of the groups: row s of all groups to row places[s]
/// of `to`. No place occurs twice; rows of `to` that are nobody's place are left unchanged.
template <class T>
struct ScatteredRows {
  MatrixView<T> to;
  const Index* places = nullptr;
  MatrixView<T> room;  // a row for each of the factor's, for backends that put rows in order first; overwritten
};

/// One matrix [rows, columns] per group, contiguous.
template <class T>
struct MatrixStack {
  T* data = nullptr;
  Index rows = 0;
  Index columns = 0;

  constexpr MatrixView<T> operator[](Index group) const {
    return {data + group * rows * columns, rows, columns, columns};
  }
};

}  // namespace moe_mamba::inline v0_2
