#pragma once

#include "moe_mamba/core/standard.hpp"

/// Sums over the lanes of a warp.
namespace moe_mamba::cuda::detail {

/// The sums over the lanes of a warp of Count values, a power of two up to 32; a lane gets that of value
/// lane · Count / 32. With each exchange a lane gives half of its values away for its share of the other half, so that
/// the whole takes about one exchange a value.
template <int Count, int Mask = 16, class C, int Size>
__device__ __forceinline__ C sum_over_lanes(C (&values)[Size], int lane) {
  if constexpr (Count > 1) {
    const bool upper = (lane & Mask) != 0;
#pragma unroll
    for (int i = 0; i < Count / 2; ++i) {
      const C given = upper ? values[i] : values[i + Count / 2], kept = upper ? values[i + Count / 2] : values[i];
      values[i] = kept + __shfl_xor_sync(0xffffffffu, given, Mask);
    }
    return sum_over_lanes<Count / 2, Mask / 2>(values, lane);
  } else if constexpr (Mask > 0) {
    values[0] += __shfl_xor_sync(0xffffffffu, values[0], Mask);
    return sum_over_lanes<1, Mask / 2>(values, lane);
  } else {
    return values[0];
  }
}

/// The same for groups of Size values, of which lanes from 16 on hold the two halves swapped: the first exchange then needs
/// no selection. A lane gets value (lane mod 16) · Groups · Size / 32 of the first halves, which from lane 16 on are the
/// second ones. Groups of one value are summed as above.
template <int Groups, int Size, class C>
__device__ __forceinline__ C sum_swapped_over_lanes(C (&values)[Groups * Size], int lane) {
  if constexpr (Size == 1) {
    return sum_over_lanes<Groups>(values, lane);
  } else {
    constexpr int half = Size / 2;
    C kept[Groups * half];
#pragma unroll
    for (int i = 0; i < Groups * half; ++i) {
      const int at = i / half * Size + i % half;
      kept[i] = values[at] + __shfl_xor_sync(0xffffffffu, values[at + half], 16);
    }
    return sum_over_lanes<Groups * half, 8>(kept, lane);
  }
}

}  // namespace moe_mamba::cuda::detail
