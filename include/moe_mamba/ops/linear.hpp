#pragma once

#include "moe_mamba/core/view.hpp"

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
namespace moe_mamba::inline v0_2 {

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

}  // namespace moe_mamba::inline v0_2
