#pragma once

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/elementwise.hpp"

/// Normalisation of rows.
///
///   rms_norm(device, x, gain, epsilon, y, inverse)          y = x · inverse · gain        (Zhang & Sennrich 2019)
///                                                           inverse = 1 / sqrt(mean(x²) + epsilon)
///   rms_norm_backward(device, x, gain, inverse, dy, dx, dgain)
///   layer_norm(device, x, gain, bias, epsilon, y, mean, inverse)                  (Ba, Kiros & Hinton 2016)
///                                                           y = (x - mean) · inverse · gain + bias
///   layer_norm_backward(device, x, gain, mean, inverse, dy, dx, dgain, dbias)
///   add_rms_norm(device, Joined{rows, x, kept}, gain, epsilon, y, inverse)        x += rows, kept = x, y as above, in one
///   add_layer_norm(device, Joined{rows, x, kept}, gain, bias, epsilon, y, mean, inverse)
///
/// The backward passes take one more argument, kept, (T, D), if asked to: a copy of dx in the type of dy.
///
/// x, y, dy, dx are (T, D); gain and bias (D); mean and inverse (T), written by the forward pass. dx, dgain and dbias
/// are added to: the residual stream carries a gradient already. rms_norm takes null for a gain of ones that has no
/// gradient; dgain is null then as well. epsilon is a double and is added to the mean square or
/// variance. A row that holds a NaN comes out as NaN.
namespace moe_mamba::inline v0_2 {

/// A residual stream, what is still to be added to it, and where a copy of the sum is kept.
template <class X, class Y>
struct Joined {
  MatrixView<const Y> rows;  // (T, D); null data: nothing
  MatrixView<X> x;           // (T, D)
  MatrixView<X> kept;        // (T, D); null data: nowhere
};

}  // namespace moe_mamba::inline v0_2
