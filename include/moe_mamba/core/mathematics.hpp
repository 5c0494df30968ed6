#pragma once

#include <cmath>
#include <type_traits>

#include "moe_mamba/core/annotation.hpp"

/// Scalar mathematics of the layers, for host and device alike. Nothing here raises a spurious overflow.
namespace moe_mamba::inline v0_2 {

/// a / b rounded up, for a >= 0 and b > 0.
template <class A, class B>
MOE_MAMBA_HOST_DEVICE constexpr std::common_type_t<A, B> ceiling_divide(A a, B b) {
  return (a + b - 1) / b;
}

/// 1 / (1 + exp(-x))
template <class T>
MOE_MAMBA_HOST_DEVICE inline T sigmoid(T x) {
  using std::exp;
  if (x >= T(0)) return T(1) / (T(1) + exp(-x));
  const T e = exp(x);
  return e / (T(1) + e);
}

/// log(1 + exp(x)), as max(x, 0) + log1p(exp(-|x|)): exact for large x without a threshold.
template <class T>
MOE_MAMBA_HOST_DEVICE inline T softplus(T x) {
  using std::exp;
  using std::log1p;
  return (x > T(0) ? x : T(0)) + log1p(x > T(0) ? exp(-x) : exp(x));
}

/// The x with softplus(x) = y, for y > 0.
template <class T>
MOE_MAMBA_HOST_DEVICE inline T inverse_softplus(T y) {
  using std::expm1;
  using std::log;
  return y + log(-expm1(-y));
}

/// x · sigmoid(x)
template <class T>
MOE_MAMBA_HOST_DEVICE inline T silu(T x) {
  return x * sigmoid(x);
}

/// d silu(x) / dx
template <class T>
MOE_MAMBA_HOST_DEVICE inline T silu_derivative(T x) {
  const T s = sigmoid(x);
  return s * (T(1) + x * (T(1) - s));
}

/// x · Φ(x) with the normal distribution function Φ (Hendrycks & Gimpel 2016, the exact form).
template <class T>
MOE_MAMBA_HOST_DEVICE inline T gelu(T x) {
  using std::erf;
  return T(0.5) * x * (T(1) + erf(x * T(0.70710678118654752440)));
}

/// d gelu(x) / dx
template <class T>
MOE_MAMBA_HOST_DEVICE inline T gelu_derivative(T x) {
  using std::erf;
  using std::exp;
  return T(0.5) * (T(1) + erf(x * T(0.70710678118654752440))) + x * T(0.39894228040143267794) * exp(T(-0.5) * x * x);
}

}  // namespace moe_mamba::inline v0_2
