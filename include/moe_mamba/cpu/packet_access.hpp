#pragma once

#include <cstdint>
#include <type_traits>

#include "moe_mamba/cpu/packet.hpp"

/// Partial loads and stores of packets, and loads that convert from another type.
namespace moe_mamba::inline v0_2::cpu {

/// The `count` elements at `from`, 0 <= count <= lanes<P>; the lanes after them are `rest`, and nothing is read for
/// these.
template <PacketLike P>
[[gnu::always_inline]] inline P load_partial(const scalar_of<P>* from, Index count, scalar_of<P> rest = 0) {
  return P(detail::load_first(from, count, P(rest).native));
}

/// Writes the first `count` lanes, 0 <= count <= lanes<P>, and nothing after them.
template <PacketLike P>
[[gnu::always_inline]] inline void store_partial(scalar_of<P>* to, P value, Index count) {
  detail::store_first(to, count, value.native);
}

/// lanes<P> stored elements, converted exactly (double to float rounds) to P's scalar.
template <PacketLike P, StorageScalar S>
[[gnu::always_inline]] inline P load_widened(const S* from) {
  using C = scalar_of<P>;
  if constexpr (std::is_same_v<S, C>) {
    return load<P>(from);
  } else if constexpr (lanes<P> == 1) {
    return P(static_cast<C>(*from));
  } else if constexpr (std::is_same_v<S, bfloat16> && std::is_same_v<C, float>) {
    // A bfloat16 is the upper half of a float.
    using Words = detail::Vector<std::uint32_t, lanes<P>>;
    const auto words = detail::load_converted<Words>(reinterpret_cast<const std::uint16_t*>(from));
    return P(detail::reinterpret<typename P::Native>(words << 16));
  } else {
    alignas(64) C buffer[lanes<P>];
    for (Index i = 0; i < lanes<P>; ++i) buffer[i] = static_cast<C>(from[i]);
    return load<P>(buffer);
  }
}

/// The `count` stored elements at `from`, converted; the lanes after them are zero, and nothing is read for these.
template <PacketLike P, StorageScalar S>
[[gnu::always_inline]] inline P load_widened_partial(const S* from, Index count) {
  if constexpr (std::is_same_v<S, scalar_of<P>>) {
    return load_partial<P>(from, count);
  } else {
    alignas(64) scalar_of<P> buffer[lanes<P>] = {};
    for (Index i = 0; i < count; ++i) buffer[i] = static_cast<scalar_of<P>>(from[i]);
    return load<P>(buffer);
  }
}

/// The `lanes<P>` elements at `from`, converted to double.
template <PacketLike P, ComputeScalar C>
[[gnu::always_inline]] inline P load_as_double(const C* from) {
  static_assert(std::is_same_v<scalar_of<P>, double>);
  if constexpr (std::is_same_v<C, double>) {
    return load<P>(from);
  } else if constexpr (lanes<P> > 1) {
    return P(detail::load_converted<typename P::Native>(from));
  } else {
    return P(double(*from));
  }
}

}  // namespace moe_mamba::inline v0_2::cpu
