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
///   add_rms_norm(device, Joined{rows, x, kept}, gain, epsilon, y, inverse)        x += rows, kept = x, y as above, in one pass
///   add_layer_norm(device, Joined{rows, x, kept}, gain, bias, epsilon, y, mean, inverse)
///
/// The backward passes have an optional last argument kept, (T, D), which receives a copy of dx in the type of dy.
///
/// x, y, dy, dx are (T, D); gain and bias (D); mean and inverse (T), written by the forward pass. Results are added to dx,
/// dgain and dbias, since the residual stream already has a gradient. rms_norm accepts a null gain, for ones without a gradient;
/// dgain is then null too. epsilon is a double, added to the mean square or variance. A row that contains a NaN results in NaN.
namespace moe_mamba::inline v0_2 {

/// A residual stream, rows to be added to it, and the destination of a copy of the sum.
template <class X, class Y>
struct Joined {
  MatrixView<const Y> rows;  // (T, D); null data: nothing to add
  MatrixView<X> x;           // (T, D)
  MatrixView<X> kept;        // (T, D); null data: no copy
};

}  // namespace moe_mamba::inline v0_2
