#pragma once

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

}  // namespace moe_mamba::cuda::detail
