#pragma once

#include <cstdint>

#include "moe_mamba/core/annotation.hpp"
#include "moe_mamba/core/scalar.hpp"

/// A float in two halves of 16 bits: a bfloat16, which a model computes with, and a remainder, which its trainer stores
/// separately, so that updates too small for a bfloat16 accumulate.
namespace moe_mamba::inline v0_2 {

/// bits(float) = 2^16 bits(upper) + remainder, where `upper` is the float rounded to nearest, ties away from zero. A tie
/// then has the remainder -2^15; ties to even would also need +2^15, which an int16 cannot represent.
struct SplitFloat {
  bfloat16 upper;
  std::int16_t remainder = 0;
};

/// The bits without their sign of the first float that rounds to infinity.
inline constexpr std::uint32_t split_float_limit = 0x7f7f8000u;

/// The halves of `value`. A value that rounds to infinity becomes infinity (from 3.3962e38 on, half a unit in the last place
/// above the largest bfloat16), a NaN a quiet NaN of the same sign; their remainders are 0.
MOE_MAMBA_HOST_DEVICE constexpr SplitFloat split_float(float value) {
  const auto word = __builtin_bit_cast(std::uint32_t, value);  // std::bit_cast is not for device code
  const std::uint32_t magnitude = word & 0x7fffffffu;
  const std::uint32_t rounded = magnitude > 0x7f800000u ? word | 0x00400000u : word + 0x8000u;
  SplitFloat halves;
  halves.upper.bits = static_cast<std::uint16_t>(rounded >> 16);
  halves.remainder = static_cast<std::int16_t>(magnitude < split_float_limit ? word & 0xffffu : 0u);
  return halves;
}

/// The float with these halves; exact for those of split_float(). Other combinations are valid too: a remainder is at most half
/// a unit in the last place of `upper`, so that the result has its sign and rounds to it. The remainder of an infinity or a NaN
/// is ignored, as is a negative one of a zero.
MOE_MAMBA_HOST_DEVICE constexpr float join_float(SplitFloat halves) {
  const std::uint32_t word = static_cast<std::uint32_t>(halves.upper.bits) << 16;
  const auto remainder = static_cast<std::uint32_t>(static_cast<std::int32_t>(halves.remainder));
  // A zero with a negative remainder wraps around to far beyond the limit.
  const std::uint32_t magnitude = (word & 0x7fffffffu) + remainder;
  return __builtin_bit_cast(float, magnitude < split_float_limit ? word + remainder : word);
}

}  // namespace moe_mamba::inline v0_2
