#pragma once

#include "moe_mamba/cpu/packet.hpp"

/// Transposition and sums over lanes of square arrays of packets, with as many packets as each has lanes.
namespace moe_mamba::inline v0_2::cpu {

namespace detail {

/// Elements of a 128-bit register. Wider registers are rows of these quads: most shuffles permute elements within each
/// quad or permute whole quads.
template <class C>
inline constexpr int quad = 16 / sizeof(C);

/// The even (odd) units of `a` and then those of `b`, block by block. A unit is some elements, a block some units.
template <int unit, int block, bool odd, class C, Index Lanes>
[[gnu::always_inline]] inline Packet<C, Lanes> every_other(Packet<C, Lanes> a, Packet<C, Lanes> b) {
  constexpr auto source = [](int i) {
    const int in_half = i % (block / 2);
    const int element = i / block * block + in_half / unit * 2 * unit + (odd ? unit : 0) + in_half % unit;
    return i % block < block / 2 ? element : element + static_cast<int>(Lanes);
  };
  // One by one, as nvcc's front end loses packs of these arguments.
  if constexpr (Lanes == 2) {
    return Packet<C, Lanes>(__builtin_shufflevector(a.native, b.native, source(0), source(1)));
  } else if constexpr (Lanes == 4) {
    return Packet<C, Lanes>(__builtin_shufflevector(a.native, b.native, source(0), source(1), source(2), source(3)));
  } else if constexpr (Lanes == 8) {
    return Packet<C, Lanes>(__builtin_shufflevector(a.native, b.native, source(0), source(1), source(2), source(3),
                                                    source(4), source(5), source(6), source(7)));
  } else {
    static_assert(Lanes == 16);
    return Packet<C, Lanes>(__builtin_shufflevector(
        a.native, b.native, source(0), source(1), source(2), source(3), source(4), source(5), source(6), source(7),
        source(8), source(9), source(10), source(11), source(12), source(13), source(14), source(15)));
  }
}

/// Transposes, block by block, the square of units in the rows first, first + step, …, of which there are as many as a
/// block has units: log2 of that number stages, each of which sorts even from odd units.
template <int unit, int block, int first, int step, int stage = 1, class P, std::size_t Size>
[[gnu::always_inline]] inline void transpose_units(P (&rows)[Size]) {
  constexpr int size = block / unit;
  if constexpr (stage < size) {
    P next[std::size_t{size}];
    unroll<size / 2>([&](auto i) {
      const P a = rows[first + 2 * i * step], b = rows[first + (2 * i + 1) * step];
      next[i] = every_other<unit, block, false>(a, b);
      next[i + size / 2] = every_other<unit, block, true>(a, b);
    });
    unroll<size>([&](auto i) { rows[first + i * step] = next[i]; });
    transpose_units<unit, block, first, step, 2 * stage>(rows);
  }
}

/// Row i becomes the sum of the even and the odd units of the rows 2 i and 2 i + 1, until `last` rows are left.
template <int unit, int block, int count, int last, class P, std::size_t Size>
[[gnu::always_inline]] inline void add_units(P (&rows)[Size]) {
  if constexpr (count > last) {
    unroll<count / 2>([&](auto i) {
      const P a = rows[2 * i], b = rows[2 * i + 1];
      rows[i] = every_other<unit, block, false>(a, b) + every_other<unit, block, true>(a, b);
    });
    add_units<unit, block, count / 2, last>(rows);
  }
}

}  // namespace detail

/// Transposes a square of packets: lane j of packet i becomes lane i of packet j.
template <ComputeScalar C, Index Lanes>
[[gnu::always_inline]] inline void transpose(Packet<C, Lanes> (&square)[static_cast<std::size_t>(Lanes)]) {
  constexpr int size = static_cast<int>(Lanes), quad = detail::quad<C>;
  if constexpr (size > 1) {
    unroll<size / quad>([&](auto q) { detail::transpose_units<1, quad, q * quad, 1>(square); });
    unroll<quad>([&](auto q) { detail::transpose_units<quad, size, q, quad>(square); });
  }
}

/// Lane i of the result is the sum of the lanes of packets[i], in a fixed order: neighbours first for 8 and 16 floats,
/// which takes 30 shuffles for 16 packets where transposing takes 64; else first to last.
template <ComputeScalar C, Index Lanes>
[[gnu::always_inline]] inline Packet<C, Lanes> sums_over_lanes(
    Packet<C, Lanes> (&packets)[static_cast<std::size_t>(Lanes)]) {
  constexpr int size = static_cast<int>(Lanes), quad = detail::quad<C>;
  if constexpr (quad == 4 && size > quad) {
    detail::add_units<1, quad, size, size / quad>(packets);
    detail::add_units<quad, size, size / quad, 1>(packets);
  } else {
    transpose(packets);
    unroll<size - 1>([&](auto i) { packets[0] += packets[i + 1]; });
  }
  return packets[0];
}

}  // namespace moe_mamba::inline v0_2::cpu
