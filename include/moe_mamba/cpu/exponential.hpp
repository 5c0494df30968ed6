#pragma once

#include <cstdint>
#include <limits>
#include <numbers>

#include "moe_mamba/cpu/packet.hpp"

/// The exponential function and its relatives on packets, for the inner loops of scans and activations.
///
/// Each takes and returns a P (Packet<float>, Packet<double>, float or double). NaN in gives NaN out. Largest relative
/// errors (measured on every 37th float and on some million doubles, with and without FMA):
///
///                              float     double     remarks
///   exponential(x)             1.0e-7    2e-16      results below the smallest normal float may be 0; infinity from
///                                                   x = 88.37 on (double: 709.78), a third below the largest float
///   decay_power(x) = 2^x       1.8e-7    2e-16      -126 <= x <= 0 (double: -1022); smaller x are clamped
///   sigmoid(x), silu(x)        1.8e-7    4e-16      as exponential
///   softplus(x)                2.7e-7    5e-16      as exponential
///
/// None raises FE_OVERFLOW, even for an infinite result, nor FE_INVALID except for a NaN.
///
/// The method: x = n ln 2 + r with |r| <= (ln 2) / 2, a polynomial for e^r, and n added to the exponent field.
namespace moe_mamba::inline v0_2::cpu {

namespace detail {

/// ((first x + next) x + …) x + last
template <PacketLike P, class... Coefficients>
[[gnu::always_inline]] inline P horner(const P& x, scalar_of<P> first, Coefficients... next) {
  P sum = first;
  ((sum = fma(sum, x, static_cast<scalar_of<P>>(next))), ...);
  return sum;
}

/// 1.5 · 2^(mantissa bits): added to a small number it leaves the nearest integer in the low bits of the sum.
template <ComputeScalar C>
inline constexpr C rounding_shift = std::is_same_v<C, float> ? C(0x1.8p23) : C(0x1.8p52);

/// The bits of a compute type's lanes, as unsigned integers.
template <PacketLike P>
using BitsOf = Vector<std::conditional_t<sizeof(scalar_of<P>) == 4, std::uint32_t, std::uint64_t>, lanes<P>>;

/// Adds the bits of `a`, shifted left into the exponent field, to the bits of `b`, as integers.
template <PacketLike P>
[[gnu::always_inline]] inline P add_exponent(P a, P b) {
  constexpr int mantissa = std::numeric_limits<scalar_of<P>>::digits - 1;
  using Bits = BitsOf<P>;
  return P(reinterpret<typename P::Native>((reinterpret<Bits>(a.native) << mantissa) + reinterpret<Bits>(b.native)));
}

/// 2^n for an integer n that is the exponent of a normal number.
template <PacketLike P>
[[gnu::always_inline]] inline P power_of_two(P n) {
  constexpr int bias = std::numeric_limits<scalar_of<P>>::max_exponent - 1;
  return add_exponent(n + (rounding_shift<scalar_of<P>> + bias), P(0));
}

/// `a`, with any NaN replaced by the one without payload.
template <PacketLike P>
[[gnu::always_inline]] inline P plain_nan(P a) {
  return select(a == a, a, std::numeric_limits<scalar_of<P>>::quiet_NaN());
}

/// e^r for |r| <= 0.3467.
template <PacketLike P>
[[gnu::always_inline]] inline P exponential_of_fraction(const P& r) {
  if constexpr (std::is_same_v<scalar_of<P>, float>) {  // minimax with the first two terms fixed: 3.2e-9
    return horner(r, 0x1.6a4e2ap-10f, 0x1.123996p-7f, 0x1.5558b0p-5f, 0x1.555492p-3f, 0x1.fffffcp-2f, 1.0f, 1.0f);
  } else {  // Taylor series, truncated at 5e-18
    return horner(r, 1 / 6227020800.0, 1 / 479001600.0, 1 / 39916800.0, 1 / 3628800.0, 1 / 362880.0, 1 / 40320.0,
                  1 / 5040.0, 1 / 720.0, 1 / 120.0, 1 / 24.0, 1 / 6.0, 0.5, 1.0, 1.0);
  }
}

/// max(x, 0) + log(1 + e) with e = e^-|x|, the logarithm as 2 artanh(e / (2 + e)).
template <PacketLike P>
[[gnu::always_inline]] inline P softplus_from(const P& x, const P& e) {
  const P u = e / (e + 2);
  const P w = u * u;
  const P positive = max(x, 0);
  if constexpr (std::is_same_v<scalar_of<P>, float>) {
    return fma(u, horner(w, 2.f / 13, 2.f / 11, 2.f / 9, 2.f / 7, 2.f / 5, 2.f / 3, 2.f), positive);
  } else {
    return fma(u,
               horner(w, 2. / 31, 2. / 29, 2. / 27, 2. / 25, 2. / 23, 2. / 21, 2. / 19, 2. / 17, 2. / 15, 2. / 13,
                      2. / 11, 2. / 9, 2. / 7, 2. / 5, 2. / 3, 2.),
               positive);
  }
}

/// e^x or, if `plus_one`, 1 + e^x.
template <bool plus_one, PacketLike P>
[[gnu::always_inline]] inline P exponential_of(P x) {
  using C = scalar_of<P>;
  constexpr bool single = std::is_same_v<C, float>;
  // Beyond these bounds the result is 0 or infinity, and n must fit in the exponent field. The order of the arguments
  // propagates a NaN.
  constexpr C top = single ? C(89) : C(709.78);
  const P bounded = max(min(x, top), single ? C(-88.3) : C(-746));
  constexpr C shift = single ? rounding_shift<C> + C(127) : rounding_shift<C>;
  const P shifted = fma(bounded, std::numbers::log2e_v<C>, shift);
  const P n = shifted - shift;
  // ln 2 in two parts, the first so short that its product with n is exact.
  constexpr C high = single ? C(0.693359375) : C(0x1.62e42fee00000p-1);
  constexpr C low = single ? C(-2.12194440e-4) : C(1.90821492927058770002e-10);
  const P r = fma(n, -low, fma(n, -high, bounded));
  const P fraction = exponential_of_fraction(r);
  if constexpr (single) {
    const P power = add_exponent(shifted, P(0));
    return plus_one ? fma(fraction, power, 1) : fraction * power;
  } else {
    // In two factors, as 2^n itself may be subnormal or infinite; only the second product rounds.
    const P half = (n * C(0.5) + shift) - shift;
    const P scaled = fraction * power_of_two(half) * power_of_two(n - half);
    const P power = select(top < x, std::numeric_limits<C>::infinity(), scaled);
    return plus_one ? 1 + power : power;
  }
}

}  // namespace detail

/// e^x
template <PacketLike P>
[[gnu::always_inline]] inline P exponential(P x) {
  return detail::exponential_of<false>(x);
}

/// decay_power in three stages, for loops that are software-pipelined over three steps. As one dependency chain it is
/// so long that too few chains fit into the out-of-order window.
template <PacketLike P>
struct DecayPower {
  P fraction;  // in [-1/2, 1/2]
  P exponent;  // float: holds n in its low bits; double: n

  /// Stage one: splits x, clamped from below, into n + fraction.
  [[gnu::always_inline]] static DecayPower split(const P& x) {
    using C = scalar_of<P>;
    const P bounded = max(x, std::is_same_v<C, float> ? C(-126) : C(-1022));
    const P shift = detail::rounding_shift<C>;
    const P shifted = bounded + shift;
    const P n = shifted - shift;
    if constexpr (std::is_same_v<C, float>) {
      return {bounded - n, shifted};
    } else {
      return {bounded - n, n};
    }
  }

  /// Stage two: the upper half of the polynomial for 2^fraction.
  [[gnu::always_inline]] P begin() const {
    if constexpr (std::is_same_v<scalar_of<P>, float>) {  // minimax with the constant term fixed at 1: 9.3e-8
      return detail::horner(fraction, 0x1.5bd9bap-10f, 0x1.3ce8b8p-7f, 0x1.c6b6dap-5f, 0x1.ebf9c2p-3f);
    } else {
      return detail::exponential_of_fraction(fraction * std::numbers::ln2);
    }
  }

  /// Stage three: the lower half, and the exponent.
  [[gnu::always_inline]] P finish(const P& begun) const {
    if constexpr (std::is_same_v<scalar_of<P>, float>) {
      const P power = fma(fma(begun, fraction, 0x1.62e42ap-1f), fraction, 1);
      return detail::add_exponent(exponent, power);
    } else {
      return begun * detail::power_of_two(exponent);
    }
  }
};

/// 2^x for x <= 0, clamped from below at 2^-126 (double: 2^-1022). decay_power(0) is exactly 1, and the error vanishes
/// with x, so slow decays do not drift.
///
/// A NaN must have no payload (see detail::plain_nan), otherwise the result may be an arbitrary number.
template <PacketLike P>
[[gnu::always_inline]] inline P decay_power(const P& x) {
  const auto parts = DecayPower<P>::split(x);
  return parts.finish(parts.begin());
}

/// 1 / (1 + e^-x)
template <PacketLike P>
[[gnu::always_inline]] inline P sigmoid(const P& x) {
  return 1 / detail::exponential_of<true>(-x);
}

/// The same for one number.
template <ComputeScalar C>
[[gnu::always_inline]] inline C exponential(C x) {
  return exponential(Packet<C, 1>(x)).native;
}
template <ComputeScalar C>
[[gnu::always_inline]] inline C sigmoid(C x) {
  return sigmoid(Packet<C, 1>(x)).native;
}

/// x sigmoid(x)
template <PacketLike P>
[[gnu::always_inline]] inline P silu(const P& x) {
  return x / detail::exponential_of<true>(-x);
}

/// A function's value and derivative at the same argument.
template <PacketLike P>
struct ValueAndDerivative {
  P value;
  P derivative;
};

/// silu(x) and its derivative.
template <PacketLike P>
[[gnu::always_inline]] inline ValueAndDerivative<P> silu_with_derivative(const P& x) {
  const P s = sigmoid(x);
  const P value = x * s;
  return {value, fma(value, 1 - s, s)};
}

/// log(1 + e^x), as max(x, 0) + log1p(e^-|x|): no threshold.
template <PacketLike P>
[[gnu::always_inline]] inline P softplus(const P& x) {
  return detail::softplus_from(x, exponential(-abs(x)));
}

/// softplus(x) and its derivative sigmoid(x).
template <PacketLike P>
[[gnu::always_inline]] inline ValueAndDerivative<P> softplus_with_derivative(const P& x) {
  const P one = 1;
  const P e = exponential(-abs(x));
  return {detail::softplus_from(x, e), select(x < 0, e, one) / (one + e)};
}

}  // namespace moe_mamba::inline v0_2::cpu
