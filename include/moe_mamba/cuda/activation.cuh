#pragma once

#include "moe_mamba/cuda/pieces.cuh"
#include "moe_mamba/ops/activation.hpp"

/// Activations of feed-forward layers on a CUDA device; the contract is in ops/activation.hpp. A user's own activation
/// marks `value` and `derivative` with MOE_MAMBA_HOST_DEVICE.
namespace moe_mamba::cuda {

namespace detail {

template <class Activation, class C>
struct ActivateElement {
  MatrixView<const C> h;
  MatrixView<C> a;
  Index up;  // from an element of the gate to its mate
  __device__ void operator()(Index row, Index column) const {
    const C value = Activation::value(h(row, column));
    if constexpr (Activation::gated) {
      a(row, column) = value * h(row, column + up);
    } else {
      a(row, column) = value;
    }
  }
};

template <class Activation, class C>
struct ActivateBackwardElement {
  MatrixView<const C> h, da;
  MatrixView<C> dh;
  Index up;
  __device__ void operator()(Index row, Index column) const {
    const C x = h(row, column), gradient = da(row, column);
    if constexpr (Activation::gated) {
      const C mate = h(row, column + up);
      dh(row, column + up) = gradient * Activation::value(x);
      dh(row, column) = gradient * mate * Activation::derivative(x);
    } else {
      dh(row, column) = gradient * Activation::derivative(x);
    }
  }
};

/// The rows of all groups, a number on the device.
inline Rows rows_of(Groups groups, Index most) { return {most, groups.offsets + groups.count}; }

}  // namespace detail

/// a = f(h), or a = f(gate) · up with h = [gate | up]; a may be h where the activation is not gated.
template <class Activation, ComputeScalar C>
void activate(Device& device, Activation, Input<C> h, MatrixView<C> a) {
  const bool contiguous = !Activation::gated && detail::all_contiguous(h, a);
  detail::for_elements(device, a.rows, a.columns, contiguous, detail::ActivateElement<Activation, C>{h, a, a.columns});
}

/// dh = da ∂a/∂h; dh may be h, or da where the activation is not gated.
template <class Activation, ComputeScalar C>
void activate_backward(Device& device, Activation, Input<C> h, Input<C> da, MatrixView<C> dh) {
  const bool contiguous = !Activation::gated && detail::all_contiguous(h, da, dh);
  detail::for_elements(device, da.rows, da.columns, contiguous,
                       detail::ActivateBackwardElement<Activation, C>{h, da, dh, da.columns});
}

/// activate() for the rows of all groups.
template <class Activation, ComputeScalar C>
void grouped_activate(Device& device, Groups groups, Activation, Input<C> h, MatrixView<C> a) {
  detail::for_elements(device, detail::rows_of(groups, a.rows), a.columns,
                       detail::ActivateElement<Activation, C>{h, a, a.columns});
}

/// activate_backward() for the rows of all groups.
template <class Activation, ComputeScalar C>
void grouped_activate_backward(Device& device, Groups groups, Activation, Input<C> h, Input<C> da, MatrixView<C> dh) {
  detail::for_elements(device, detail::rows_of(groups, da.rows), da.columns,
                       detail::ActivateBackwardElement<Activation, C>{h, da, dh, da.columns});
}

}  // namespace moe_mamba::cuda
