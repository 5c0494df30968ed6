#pragma once

#include "moe_mamba/core/annotation.hpp"
#include "moe_mamba/core/scalar.hpp"

/// The number of tokens that a sequence has read, as a part of its running state: two digits to base 2^20, lowest first, which
/// are exact in float up to 2^44 (a single float is exact up to 2^24). A new state, with zeros, has read none.
///
/// Any numbers are valid: a digit is rounded to the nearest integer, and limited to 0 … 2^22; NaN counts as 0.
namespace moe_mamba::inline v0_2 {

inline constexpr Index position_digits = 2;

template <class C>
MOE_MAMBA_HOST_DEVICE constexpr Index read_position(const C* digits) {
  Index position = 0, base = 1;
  for (Index i = 0; i < position_digits; ++i, base <<= 20) {
    const C digit = digits[i], highest = C(1 << 22);
    if (digit >= C(0.5)) position += base * static_cast<Index>((digit < highest ? digit : highest) + C(0.5));
  }
  return position;
}

template <class C>
MOE_MAMBA_HOST_DEVICE constexpr void write_position(Index position, C* digits) {
  constexpr Index base = Index{1} << 20;
  digits[0] = static_cast<C>(position % base);
  digits[1] = static_cast<C>(position / base);
}

/// The number of tokens that a sequence has read, from the first two numbers of its state; 0 without states.
template <class View>
MOE_MAMBA_HOST_DEVICE constexpr Index position_of(const View& digits, Index sequence) {
  return digits ? read_position(digits.sequence(sequence)) : 0;
}

}  // namespace moe_mamba::inline v0_2
