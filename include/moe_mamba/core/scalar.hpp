#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "moe_mamba/core/annotation.hpp"

/// Scalar types: what parameters are stored in, and what arithmetic is done in.
namespace moe_mamba::inline v0_2 {

/// Signed size and index type of the library; offsets never wrap below 2^63 elements.
using Index = std::ptrdiff_t;

/// A size as an array bound, which must be unsigned.
template <Index N>
inline constexpr std::size_t array_size = static_cast<std::size_t>(N);

/// One input symbol of a language model.
using Token = std::int32_t;

/// Brain floating point: the upper half of an IEEE float32. A storage type only: arithmetic is done in float.
struct bfloat16 {
  std::uint16_t bits = 0;

  bfloat16() = default;

  /// Rounds to nearest, ties to even. A NaN stays a (quiet) NaN of the same sign.
  MOE_MAMBA_HOST_DEVICE explicit constexpr bfloat16(float value) {
    const auto word = __builtin_bit_cast(std::uint32_t, value);  // std::bit_cast is not for device code
    if ((word & 0x7fffffffu) > 0x7f800000u) {
      bits = static_cast<std::uint16_t>((word >> 16) | 0x0040u);
    } else {
      bits = static_cast<std::uint16_t>((word + 0x7fffu + ((word >> 16) & 1u)) >> 16);
    }
  }
  MOE_MAMBA_HOST_DEVICE explicit constexpr bfloat16(double value) : bfloat16(static_cast<float>(value)) {}

  /// Exact.
  MOE_MAMBA_HOST_DEVICE explicit constexpr operator float() const {
    return __builtin_bit_cast(float, static_cast<std::uint32_t>(bits) << 16);
  }
  MOE_MAMBA_HOST_DEVICE explicit constexpr operator double() const {
    return static_cast<double>(static_cast<float>(*this));
  }

  MOE_MAMBA_HOST_DEVICE friend constexpr bool operator==(bfloat16 a, bfloat16 b) {
    return static_cast<float>(a) == static_cast<float>(b);
  }
};

/// A type that parameters can be stored in: float, double or bfloat16.
template <class T>
concept StorageScalar = std::same_as<T, float> || std::same_as<T, double> || std::same_as<T, bfloat16>;

/// A type that arithmetic is done in: float or double.
template <class T>
concept ComputeScalar = std::same_as<T, float> || std::same_as<T, double>;

/// The compute type of a storage type: double for double, float for float and bfloat16. Running states, the residual
/// stream, gradients of parameters and everything that is summed are held in it; activations are too, but on a CUDA
/// device, where those that go with bfloat16 parameters are bfloat16.
template <StorageScalar Storage>
using compute_t = std::conditional_t<std::same_as<Storage, double>, double, float>;

}  // namespace moe_mamba::inline v0_2
