#pragma once

#include "moe_mamba/cpu/packet_access.hpp"

/// For operations whose packets hold neighbouring channels of one row (selective scan, causal convolution).
namespace moe_mamba::inline v0_2::cpu::detail {

/// The channels of one packet: all its lanes, or the first `count` at the edge of the matrix; the others read as zero.
template <PacketLike P, bool Partial>
struct ChannelLanes {
  using C = scalar_of<P>;
  Index count = lanes<P>;

  [[gnu::always_inline]] P load_channels(const C* from) const {
    if constexpr (Partial) {
      return load_partial<P>(from, count);
    } else {
      return load<P>(from);
    }
  }
  template <StorageScalar S>
  [[gnu::always_inline]] P load_parameters(const S* from) const {
    if constexpr (Partial) {
      return load_widened_partial<P>(from, count);
    } else {
      return load_widened<P>(from);
    }
  }
  [[gnu::always_inline]] void store_channels(C* to, const P& value) const {
    if constexpr (Partial) {
      store_partial<P>(to, value, count);
    } else {
      store(to, value);
    }
  }
};

/// Calls body(lanes) with the ChannelLanes of the block at `channel` of `channels`.
template <PacketLike P, class Body>
[[gnu::always_inline]] inline void with_channel_lanes(Index channel, Index channels, const Body& body) {
  if (channel + lanes<P> <= channels) {
    body(ChannelLanes<P, false>{});
  } else {
    body(ChannelLanes<P, true>{channels - channel});
  }
}

/// Hints that the memory at `address` will soon be read (or, with Write, written).
template <bool Write>
[[gnu::always_inline]] inline void prefetch(const void* address) {
  __builtin_prefetch(address, Write ? 1 : 0);
}

}  // namespace moe_mamba::inline v0_2::cpu::detail
