#pragma once

#include <cmath>
#include <type_traits>
#include <utility>

#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/cpu/instruction_set.hpp"

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error \
    "moe_mamba: -ffast-math and -Ofast let the compiler assume that there is no NaN and reorder sums, which changes results and hides NaNs; allowed: -O3, with -fno-fast-math for the files that include moe_mamba"
#endif

// g++ 12 takes the deliberately undefined operands inside its AVX-512 intrinsics for mistakes of whoever calls them, here
// and in Eigen; and native vector types carry attributes that are dropped, harmlessly, when they become template
// arguments.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-attributes"
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <Eigen/Core>

/// Short names for the machine's vector registers: a thin layer over Eigen's packet mathematics.
///
/// A kernel is written once over a type P that is either Packet<C>, the widest native vector of C, or the scalar C
/// itself, a packet of one lane for the elements that are left over. All loads and stores take any alignment.
namespace moe_mamba::cpu {

/// Eigen's type for the widest vector of C.
template <ComputeScalar C>
using native_packet = typename Eigen::internal::packet_traits<C>::type;

/// The widest vector of this machine: Packet<float> has 16, 8, 4 or 1 lanes.
template <ComputeScalar C>
struct Packet {
  using Native = native_packet<C>;
  Native native;
};

namespace detail {

template <class P>
struct PacketTraits;

template <ComputeScalar C>
struct PacketTraits<C> {
  using Scalar = C;
  static constexpr Index lanes = 1;
};

template <ComputeScalar C>
struct PacketTraits<Packet<C>> {
  using Scalar = C;
  static constexpr Index lanes = Eigen::internal::packet_traits<C>::size;
};

}  // namespace detail

/// Packet<float>, Packet<double>, float or double.
template <class P>
concept PacketLike = requires {
  detail::PacketTraits<P>::lanes;
};

/// Elements in a P.
template <PacketLike P>
inline constexpr Index lanes = detail::PacketTraits<P>::lanes;

/// The type of P's elements.
template <PacketLike P>
using scalar_of = typename detail::PacketTraits<P>::Scalar;

/// Vector registers of the machine that the program is compiled for.
inline constexpr int vector_registers = EIGEN_ARCH_DEFAULT_NUMBER_OF_REGISTERS;

/// Calls f(0), …, f(count - 1) with constants, one after the other, without a loop: what a compiler must see unrolled
/// to keep arrays of packets in registers.
template <class F, int... I>
[[gnu::always_inline]] inline void unroll(const F& f, std::integer_sequence<int, I...>) {
  (f(std::integral_constant<int, I>()), ...);
}
template <Index count, class F>
[[gnu::always_inline]] inline void unroll(const F& f) {
  unroll(f, std::make_integer_sequence<int, static_cast<int>(count)>());
}

/// The elements at `from` … `from` + lanes<P> - 1.
template <PacketLike P>
[[gnu::always_inline]] inline P load(const scalar_of<P>* from) {
  if constexpr (lanes<P> == 1) {
    return P{*from};
  } else {
    return P{Eigen::internal::ploadu<typename P::Native>(from)};
  }
}

template <PacketLike P>
[[gnu::always_inline]] inline void store(scalar_of<P>* to, const P& value) {
  if constexpr (std::is_same_v<P, scalar_of<P>>) {
    *to = value;
  } else {
    Eigen::internal::pstoreu(to, value.native);
  }
}

/// `value` in each lane.
template <PacketLike P>
[[gnu::always_inline]] inline P broadcast(scalar_of<P> value) {
  if constexpr (std::is_same_v<P, scalar_of<P>>) {
    return value;
  } else {
    return P{Eigen::internal::pset1<typename P::Native>(value)};
  }
}

template <PacketLike P>
[[gnu::always_inline]] inline P zero() {
  return broadcast<P>(scalar_of<P>(0));
}

template <ComputeScalar C>
[[gnu::always_inline]] inline Packet<C> add(const Packet<C>& a, const Packet<C>& b) {
  return {Eigen::internal::padd(a.native, b.native)};
}
template <ComputeScalar C>
[[gnu::always_inline]] inline Packet<C> sub(const Packet<C>& a, const Packet<C>& b) {
  return {Eigen::internal::psub(a.native, b.native)};
}
template <ComputeScalar C>
[[gnu::always_inline]] inline Packet<C> mul(const Packet<C>& a, const Packet<C>& b) {
  return {Eigen::internal::pmul(a.native, b.native)};
}
template <ComputeScalar C>
[[gnu::always_inline]] inline Packet<C> div(const Packet<C>& a, const Packet<C>& b) {
  return {Eigen::internal::pdiv(a.native, b.native)};
}
/// a b + c, rounded once where the machine has the instruction.
template <ComputeScalar C>
[[gnu::always_inline]] inline Packet<C> fma(const Packet<C>& a, const Packet<C>& b, const Packet<C>& c) {
  return {Eigen::internal::pmadd(a.native, b.native, c.native)};
}
/// As std::max: `a` unless a < b, so that a NaN in `a` comes out.
template <ComputeScalar C>
[[gnu::always_inline]] inline Packet<C> max(const Packet<C>& a, const Packet<C>& b) {
  return {Eigen::internal::pmax(a.native, b.native)};
}
/// As std::min: `a` unless b < a, so that a NaN in `a` comes out.
template <ComputeScalar C>
[[gnu::always_inline]] inline Packet<C> min(const Packet<C>& a, const Packet<C>& b) {
  return {Eigen::internal::pmin(a.native, b.native)};
}
/// By the sign bit: Eigen's own subtracts from 0 in AVX-512, which makes 0 of 0.
template <ComputeScalar C>
[[gnu::always_inline]] inline Packet<C> negate(const Packet<C>& a) {
  return {Eigen::internal::pxor(a.native, broadcast<Packet<C>>(C(-0.0)).native)};
}
template <ComputeScalar C>
[[gnu::always_inline]] inline Packet<C> abs(const Packet<C>& a) {
  return {Eigen::internal::pabs(a.native)};
}
/// Rounded correctly, as std::sqrt. (Eigen's approximates and refines: another value than of a lone element, and 0 times
/// infinity on the way to the root of 0.)
template <ComputeScalar C>
[[gnu::always_inline]] inline Packet<C> sqrt(const Packet<C>& a) {
#if defined(EIGEN_VECTORIZE_AVX512)
  if constexpr (std::is_same_v<C, float>) {
    return {_mm512_sqrt_ps(a.native)};
  } else {
    return {_mm512_sqrt_pd(a.native)};
  }
#elif defined(EIGEN_VECTORIZE_AVX)
  if constexpr (std::is_same_v<C, float>) {
    return {_mm256_sqrt_ps(a.native)};
  } else {
    return {_mm256_sqrt_pd(a.native)};
  }
#elif defined(EIGEN_VECTORIZE_SSE2)
  if constexpr (std::is_same_v<C, float>) {
    return {_mm_sqrt_ps(a.native)};
  } else {
    return {_mm_sqrt_pd(a.native)};
  }
#else
  alignas(64) C roots[lanes<Packet<C>>];
  Eigen::internal::pstoreu(roots, a.native);
  for (C& root : roots) root = std::sqrt(root);
  return {Eigen::internal::ploadu<native_packet<C>>(roots)};
#endif
}
/// The sum of the lanes, in an order that is always the same.
template <ComputeScalar C>
[[gnu::always_inline]] inline C horizontal_sum(const Packet<C>& a) {
  return Eigen::internal::predux(a.native);
}
/// The largest lane; unspecified where one is NaN.
template <ComputeScalar C>
[[gnu::always_inline]] inline C horizontal_max(const Packet<C>& a) {
  return Eigen::internal::predux_max(a.native);
}

template <ComputeScalar C>
[[gnu::always_inline]] inline C add(C a, C b) {
  return a + b;
}
template <ComputeScalar C>
[[gnu::always_inline]] inline C sub(C a, C b) {
  return a - b;
}
template <ComputeScalar C>
[[gnu::always_inline]] inline C mul(C a, C b) {
  return a * b;
}
template <ComputeScalar C>
[[gnu::always_inline]] inline C div(C a, C b) {
  return a / b;
}
template <ComputeScalar C>
[[gnu::always_inline]] inline C fma(C a, C b, C c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return std::fma(a, b, c);
#else
  return a * b + c;
#endif
}
template <ComputeScalar C>
[[gnu::always_inline]] inline C max(C a, C b) {
  return a < b ? b : a;
}
template <ComputeScalar C>
[[gnu::always_inline]] inline C min(C a, C b) {
  return b < a ? b : a;
}
template <ComputeScalar C>
[[gnu::always_inline]] inline C negate(C a) {
  return -a;
}
template <ComputeScalar C>
[[gnu::always_inline]] inline C abs(C a) {
  return std::abs(a);
}
template <ComputeScalar C>
[[gnu::always_inline]] inline C sqrt(C a) {
  return std::sqrt(a);
}
template <ComputeScalar C>
[[gnu::always_inline]] inline C horizontal_sum(C a) {
  return a;
}
template <ComputeScalar C>
[[gnu::always_inline]] inline C horizontal_max(C a) {
  return a;
}

/// Turns a square of packets: lane j of packet i becomes lane i of packet j.
template <ComputeScalar C>
[[gnu::always_inline]] inline void transpose(Packet<C> (&square)[lanes<Packet<C>>]) {
  constexpr Index size = lanes<Packet<C>>;
  if constexpr (size > 1) {
    Eigen::internal::PacketBlock<native_packet<C>, static_cast<int>(size)> block;
    unroll<size>([&](auto i) __attribute__((always_inline)) { block.packet[i] = square[i].native; });
    Eigen::internal::ptranspose(block);
    unroll<size>([&](auto i) __attribute__((always_inline)) { square[i].native = block.packet[i]; });
  }
}

/// Lane i of the result is the sum of the lanes of packets[i], in an order that is always the same. Whole packets are
/// added in pairs of halves: 30 shuffles for 16 of 16 lanes, where turning the square takes 64.
template <ComputeScalar C>
[[gnu::always_inline]] inline Packet<C> sums_over_lanes(Packet<C> (&packets)[lanes<Packet<C>>]) {
  constexpr Index width = lanes<Packet<C>>;
#if defined(EIGEN_VECTORIZE_AVX512)
  if constexpr (std::is_same_v<C, float>) {
    __m512 quads[4];
    unroll<4>([&](auto q) __attribute__((always_inline)) {
      const __m512 a = packets[4 * q].native, b = packets[4 * q + 1].native;
      const __m512 c = packets[4 * q + 2].native, d = packets[4 * q + 3].native;
      const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
      const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
      quads[q] = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xEE));
    });
    const auto halves = [](__m512 a, __m512 b) __attribute__((always_inline)) {
      return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD));
    };
    return {halves(halves(quads[0], quads[1]), halves(quads[2], quads[3]))};
  }
#elif defined(EIGEN_VECTORIZE_AVX)
  if constexpr (std::is_same_v<C, float>) {
    const auto quad = [&](int q) __attribute__((always_inline)) {
      return _mm256_hadd_ps(_mm256_hadd_ps(packets[q].native, packets[q + 1].native),
                            _mm256_hadd_ps(packets[q + 2].native, packets[q + 3].native));
    };
    const __m256 low = quad(0), high = quad(4);
    return {_mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31))};
  }
#endif
  transpose(packets);
  unroll<width - 1>([&](auto i) __attribute__((always_inline)) { packets[0] = add(packets[0], packets[i + 1]); });
  return packets[0];
}

}  // namespace moe_mamba::cpu

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
