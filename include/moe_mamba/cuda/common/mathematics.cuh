#pragma once

#include <cstdint>
#include <numbers>
#include <type_traits>

#include "moe_mamba/core/scalar.hpp"

/// The scalar functions of the scan and the convolution on the GPU: in float a few instructions around the special
/// function unit's powers of two and reciprocals, as these kernels are bound by instructions; in double the library's.
///
/// Relative errors in float: power_of_two 2^-22 (below 2^-126 it is 0); softplus and sigmoid about 3e-7 for results
/// above 2^-126, and for bfloat16 activations about 3e-7 + 6e-8 |x|. NaN propagates.
namespace moe_mamba::inline v0_2::cuda::detail {

/// 2^x
__device__ __forceinline__ float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ double power_of_two(double x) { return exp2(x); }

/// 1 / x for x >= 1; 0 for infinity.
__device__ __forceinline__ float reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ double reciprocal(double x) { return 1.0 / x; }

/// The functions below to float accuracy: a power of two is corrected by the rounding error of its exponent.
struct ExactFloat {
  /// exp(-|x|)
  static __device__ __forceinline__ float decayed(float x) {
    constexpr float log2e = std::numbers::log2e_v<float>;
    constexpr float log2e_rest = static_cast<float>(std::numbers::log2e - double{log2e});
    constexpr float ln2 = std::numbers::ln2_v<float>;
    float a = fabsf(x);
    a = a > 100.0f ? 100.0f : a;  // exp(-100) is 0 already, and infinity would become NaN below
    const float t = a * log2e;
    const float power = power_of_two(-t);
    const float rest = fmaf(a, log2e_rest, fmaf(a, log2e, -t));  // the rounding error of t
    return fmaf(power * -ln2, rest, power);
  }
  /// log(1 + x) for x in [0, 1].
  static __device__ __forceinline__ float logarithm_1p(float x) {
    // The minimax polynomial of degree 8 for log(1 + x) / x, with a relative error of 3e-8.
    float p = 0.0052326940931f;
    p = fmaf(p, x, -0.0295052379370f);
    p = fmaf(p, x, 0.0782259479165f);
    p = fmaf(p, x, -0.136632457375f);
    p = fmaf(p, x, 0.191060066223f);
    p = fmaf(p, x, -0.248429819942f);
    p = fmaf(p, x, 0.333190977573f);
    p = fmaf(p, x, -0.499994933605f);
    p = fmaf(p, x, 0.999999940395f);
    return p * x;
  }
  static __device__ __forceinline__ float sigmoid(float x) {
    const float power = decayed(x), r = reciprocal(1.0f + power);
    return x >= 0.0f ? r : power * r;
  }
};

/// The same without the correction: for activations with an 8-bit significand.
struct ShortFloat {
  static __device__ __forceinline__ float decayed(float x) {
    return power_of_two(fabsf(x) * -std::numbers::log2e_v<float>);
  }
  static __device__ __forceinline__ float logarithm_1p(float x) {
    float p = -0.00853920866328f;  // of degree 7: 2e-7, as states are not rounded to bfloat16
    p = fmaf(p, x, 0.0440896321722f);
    p = fmaf(p, x, -0.10768171354f);
    p = fmaf(p, x, 0.177452414746f);
    p = fmaf(p, x, -0.244954628287f);
    p = fmaf(p, x, 0.332754797721f);
    p = fmaf(p, x, -0.499974053957f);
    p = fmaf(p, x, 0.999999805667f);
    return p * x;
  }
  static __device__ __forceinline__ float sigmoid(float x) {
    return reciprocal(1.0f + power_of_two(x * -std::numbers::log2e_v<float>));
  }
};

struct ExactDouble {
  static __device__ __forceinline__ double decayed(double x) { return exp(-fabs(x)); }
  static __device__ __forceinline__ double logarithm_1p(double x) { return log1p(x); }
  static __device__ __forceinline__ double sigmoid(double x) {
    const double power = decayed(x), r = 1.0 / (1.0 + power);
    return x >= 0.0 ? r : power * r;
  }
};

/// The accuracy of functions of activations of type C.
template <StorageScalar C>
using Exactness = std::conditional_t<std::is_same_v<C, bfloat16>, ShortFloat,
                                     std::conditional_t<std::is_same_v<C, float>, ExactFloat, ExactDouble>>;

/// log(1 + exp(x))
template <StorageScalar C>
__device__ __forceinline__ compute_t<C> softplus_of(compute_t<C> x) {
  using T = compute_t<C>;
  return (x > T(0) ? x : T(0)) + Exactness<C>::logarithm_1p(Exactness<C>::decayed(x));
}

/// 1 / (1 + exp(-x))
template <StorageScalar C>
__device__ __forceinline__ compute_t<C> sigmoid_of(compute_t<C> x) {
  return Exactness<C>::sigmoid(x);
}

/// x sigmoid(x)
template <StorageScalar C>
__device__ __forceinline__ compute_t<C> silu_of(compute_t<C> x) {
  return x * sigmoid_of<C>(x);
}

/// silu(x) and its derivative.
template <ComputeScalar T>
struct ValueAndSlope {
  T value, slope;
};
template <StorageScalar C>
__device__ __forceinline__ ValueAndSlope<compute_t<C>> silu_and_slope_of(compute_t<C> x) {
  using T = compute_t<C>;
  const T s = sigmoid_of<C>(x);
  return {x * s, s * (T(1) + x * (T(1) - s))};
}

/// -exp(a_log) log2(e): the exponent of 2 in a decay over Δ = 1. Finite, so that Δ = 0 gives a decay of 1.
template <ComputeScalar C, StorageScalar S>
__device__ __forceinline__ C decay_rate(S a_log) {
  constexpr C lowest = C(-1e30);
  const C rate = -exp(static_cast<C>(a_log)) * std::numbers::log2e_v<C>;
  return rate < lowest ? lowest : rate;
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
