#pragma once

#include <bit>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/cpu/native_vector.hpp"

/// Vector registers as values with operators.
///
/// A kernel is written once over a type P that is either Packet<C>, the widest vector of C, or Packet<C, 1>, one
/// element, for the remainder of a row. Both give an element the same bits: every operation below is one IEEE operation
/// in each lane. A product is never contracted with a sum, whatever the flags: a kernel that wants a * b + c rounded
/// once calls fma(a, b, c), which is one instruction on machines that have it and a product and a sum on those that do
/// not.
namespace moe_mamba::inline v0_2::cpu {

template <ComputeScalar C, Index Lanes = native_lanes<C>>
struct Packet;

/// The result of comparing Packet<C, Lanes>: all bits are set in the lanes where the comparison is true and clear in
/// the others; bool for one lane.
template <ComputeScalar C, Index Lanes>
struct Mask {
  detail::Comparison<detail::Vector<C, Lanes>> native;
};

/// `Lanes` elements of type C: 16, 8 or 4 floats, 8, 4 or 2 doubles, or one of either.
template <ComputeScalar C, Index Lanes>
struct Packet {
  using Scalar = C;
  using Native = detail::Vector<C, Lanes>;

  Native native;

  Packet() = default;  // not initialised
  /// `value` in each lane. (A difference, since 0 + -0 is 0; it compiles to a broadcast.)
  [[gnu::always_inline]] Packet(C value) : native(value - Native{}) {}
  [[gnu::always_inline]] explicit Packet(Native value) requires(Lanes > 1) : native(value) {}

  [[gnu::always_inline]] friend Packet operator+(Packet a, Packet b) { return Packet(a.native + b.native); }
  [[gnu::always_inline]] friend Packet operator-(Packet a, Packet b) { return Packet(a.native - b.native); }
  [[gnu::always_inline]] friend Packet operator/(Packet a, Packet b) { return Packet(a.native / b.native); }
  [[gnu::always_inline]] friend Packet operator*(Packet a, Packet b) {
    return Packet(detail::product(a.native, b.native));
  }
  /// Flips the sign bit.
  [[gnu::always_inline]] friend Packet operator-(Packet a) { return Packet(-a.native); }

  [[gnu::always_inline]] friend Mask<C, Lanes> operator<(Packet a, Packet b) { return {a.native < b.native}; }
  [[gnu::always_inline]] friend Mask<C, Lanes> operator==(Packet a, Packet b) { return {a.native == b.native}; }
  /// `yes` in the lanes of `mask`, `no` in the others.
  [[gnu::always_inline]] friend Packet select(Mask<C, Lanes> mask, Packet yes, Packet no) {
    return Packet(detail::blend(mask.native, yes.native, no.native));
  }
  /// As std::max: `a` unless a < b, so a NaN in `a` is returned.
  [[gnu::always_inline]] friend Packet max(Packet a, Packet b) { return Packet(detail::larger(a.native, b.native)); }
  /// As std::min: `a` unless b < a, so a NaN in `a` is returned.
  [[gnu::always_inline]] friend Packet min(Packet a, Packet b) { return Packet(detail::smaller(a.native, b.native)); }
  /// a b + c, rounded once where the machine has the instruction.
  [[gnu::always_inline]] friend Packet fma(Packet a, Packet b, Packet c) {
    return Packet(detail::multiply_add(a.native, b.native, c.native));
  }

  [[gnu::always_inline]] Packet& operator+=(Packet other) { return *this = *this + other; }
};

namespace detail {

template <class P>
inline constexpr Index packet_lanes = 0;
template <ComputeScalar C, Index Lanes>
inline constexpr Index packet_lanes<Packet<C, Lanes>> = Lanes;

}  // namespace detail

/// Any Packet.
template <class P>
concept PacketLike = detail::packet_lanes<P> >
0;

/// Elements in a P.
template <PacketLike P>
inline constexpr Index lanes = detail::packet_lanes<P>;

/// The type of P's elements.
template <PacketLike P>
using scalar_of = typename P::Scalar;

/// Clears the sign bit.
template <ComputeScalar C, Index Lanes>
[[gnu::always_inline]] inline Packet<C, Lanes> abs(Packet<C, Lanes> a) {
  using Bits = detail::Vector<std::conditional_t<sizeof(C) == 4, std::uint32_t, std::uint64_t>, Lanes>;
  return Packet<C, Lanes>(
      detail::reinterpret<typename Packet<C, Lanes>::Native>(detail::reinterpret<Bits>(a.native) << 1 >> 1));
}

/// Rounded correctly, as std::sqrt.
template <ComputeScalar C, Index Lanes>
[[gnu::always_inline]] inline Packet<C, Lanes> sqrt(Packet<C, Lanes> a) {
  return Packet<C, Lanes>(detail::square_root(a.native));
}

/// The elements at `from` … `from` + lanes<P> - 1, which may have any alignment.
template <PacketLike P>
[[gnu::always_inline]] inline P load(const scalar_of<P>* from) {
  return P(*reinterpret_cast<const typename detail::VectorOf<scalar_of<P>, lanes<P>>::unaligned*>(from));
}

template <ComputeScalar C, Index Lanes>
[[gnu::always_inline]] inline void store(C* to, Packet<C, Lanes> value) {
  *reinterpret_cast<typename detail::VectorOf<C, Lanes>::unaligned*>(to) = value.native;
}

namespace detail {

/// combine(lower half, upper half) until one element is left.
template <class C, Index Lanes, class Combine>
[[gnu::always_inline]] inline C fold_halves(Packet<C, Lanes> a, const Combine& combine) {
  if constexpr (Lanes == 1) {
    return a.native;
  } else if constexpr (sizeof(a) == 16) {  // no vector type is narrower than 16 bytes
    using One = Packet<C, 1>;
    One half[static_cast<std::size_t>(Lanes / 2)];
    for (Index i = 0; i < Lanes / 2; ++i) half[i] = combine(One(a.native[i]), One(a.native[i + Lanes / 2]));
    return Lanes == 2 ? half[0].native : combine(half[0], half[Lanes / 2 - 1]).native;
  } else {
    struct Halves {
      Vector<C, Lanes / 2> lower, upper;
    };
    const auto halves = std::bit_cast<Halves>(a.native);
    using Half = Packet<C, Lanes / 2>;
    return fold_halves(combine(Half(halves.lower), Half(halves.upper)), combine);
  }
}

}  // namespace detail

/// The sum of the lanes: the upper half is added to the lower one until one lane is left.
template <ComputeScalar C, Index Lanes>
[[gnu::always_inline]] inline C horizontal_sum(Packet<C, Lanes> a) {
  return detail::fold_halves(a, [](auto lower, auto upper) { return lower + upper; });
}
/// The largest lane; unspecified if one is NaN.
template <ComputeScalar C, Index Lanes>
[[gnu::always_inline]] inline C horizontal_max(Packet<C, Lanes> a) {
  return detail::fold_halves(a, [](auto lower, auto upper) { return max(lower, upper); });
}

/// Calls f(0), …, f(count - 1) with constants, one after the other, without a loop or a call: compilers keep arrays of
/// packets in registers only in such code. The constants are types: with g++ 12 a training step takes twice the time if
/// functions take an int, of which there would be one instance each.
template <class F, int... I>
[[gnu::always_inline, gnu::flatten]] inline void unroll(const F& f, std::integer_sequence<int, I...>) {
  (f(std::integral_constant<int, I>()), ...);
}
template <Index count, class F>
[[gnu::always_inline, gnu::flatten]] inline void unroll(const F& f) {
  unroll(f, std::make_integer_sequence<int, static_cast<int>(count)>());
}

}  // namespace moe_mamba::inline v0_2::cpu
