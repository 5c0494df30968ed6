#pragma once

#include "moe_mamba/cuda/common/elements.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/ops/activation.hpp"

/// Activations of feed-forward layers on a CUDA device; the contract is in ops/activation.hpp. A user's own activation
/// marks `value` and `derivative` with MOE_MAMBA_HOST_DEVICE.
namespace moe_mamba::inline v0_2::cuda {

namespace detail {

template <class Activation, class C>
struct ActivateVector {
  MatrixView<const C> h;
  MatrixView<C> a;
  Index up;  // offset from an element of the gate to its element of `up`
  template <int count>
  __device__ void operator()(Index row, Index column) const {
    auto result = load_widened<count>(h, row, column);
    for (int i = 0; i < count; ++i) result.values[i] = Activation::value(result.values[i]);
    if constexpr (Activation::gated) {
      const auto mates = load_widened<count>(h, row, column + up);
      for (int i = 0; i < count; ++i) result.values[i] *= mates.values[i];
    }
    store_narrowed<count>(result, a, row, column);
  }
};

template <class Activation, class C>
struct ActivateBackwardVector {
  MatrixView<const C> h, da;
  MatrixView<C> dh;
  Index up;
  template <int count>
  __device__ void operator()(Index row, Index column) const {
    const auto x = load_widened<count>(h, row, column), gradient = load_widened<count>(da, row, column);
    Vector<compute_t<C>, count> dx;
    for (int i = 0; i < count; ++i) dx.values[i] = gradient.values[i] * Activation::derivative(x.values[i]);
    if constexpr (Activation::gated) {
      const auto mates = load_widened<count>(h, row, column + up);
      Vector<compute_t<C>, count> dmates;
      for (int i = 0; i < count; ++i) {
        dmates.values[i] = gradient.values[i] * Activation::value(x.values[i]);
        dx.values[i] *= mates.values[i];
      }
      store_narrowed<count>(dmates, dh, row, column + up);
    }
    store_narrowed<count>(dx, dh, row, column);
  }
};

/// The rows of all groups, whose number only the device knows.
inline Rows rows_of(Groups groups, Index most) { return {most, groups.offsets + groups.count}; }

}  // namespace detail

/// a = f(h), or a = f(gate) · up with h = [gate | up]; a may be h unless the activation is gated.
template <class Activation, StorageScalar C>
void activate(Device& device, Activation, Input<C> h, MatrixView<C> a) {
  if (!Activation::gated && detail::all_contiguous(h, a)) {
    h = detail::flattened(h);
    a = detail::flattened(a);
  }
  const detail::ActivateVector<Activation, C> each{h, a, a.columns};
  detail::for_vectors(device, {a.rows}, a.columns, each, h, a);
}

/// dh = da ∂a/∂h; dh may be h, or da unless the activation is gated.
template <class Activation, StorageScalar C>
void activate_backward(Device& device, Activation, Input<C> h, Input<C> da, MatrixView<C> dh) {
  if (!Activation::gated && detail::all_contiguous(h, da, dh)) {
    h = detail::flattened(h);
    da = detail::flattened(da);
    dh = detail::flattened(dh);
  }
  const detail::ActivateBackwardVector<Activation, C> each{h, da, dh, da.columns};
  detail::for_vectors(device, {da.rows}, da.columns, each, h, da, dh);
}

/// activate() for the rows of all groups.
template <class Activation, StorageScalar C>
void grouped_activate(Device& device, Groups groups, Activation, Input<C> h, MatrixView<C> a) {
  const detail::ActivateVector<Activation, C> each{h, a, a.columns};
  detail::for_vectors(device, detail::rows_of(groups, a.rows), a.columns, each, h, a);
}

/// activate_backward() for the rows of all groups.
template <class Activation, StorageScalar C>
void grouped_activate_backward(Device& device, Groups groups, Activation, Input<C> h, Input<C> da, MatrixView<C> dh) {
  const detail::ActivateBackwardVector<Activation, C> each{h, da, dh, da.columns};
  detail::for_vectors(device, detail::rows_of(groups, da.rows), da.columns, each, h, da, dh);
}

}  // namespace moe_mamba::inline v0_2::cuda
