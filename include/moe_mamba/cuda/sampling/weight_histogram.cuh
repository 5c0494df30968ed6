#pragma once

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/standard.hpp"

/// Sums of weights by one digit of their keys, for a radix select: finding where sorted weights reach a sum without
/// sorting them.
namespace moe_mamba::inline v0_2::cuda::detail {

/// Digits of up to 11 bits, the highest first: the bits of a key that make up digit number `digit`.
template <class Key>
struct KeyDigit {
  static constexpr int bits = 8 * int(sizeof(Key)), width = 11;
  static constexpr int count = ceiling_divide(bits, width);

  int end, begin;  // bits begin … end - 1

  __host__ __device__ explicit KeyDigit(int digit) : end(bits - width * digit), begin(end > width ? end - width : 0) {}
  __device__ int of(Key key) const { return int(key >> begin) & ((1 << (end - begin)) - 1); }
  /// Whether two keys are equal in the digits before this one.
  __device__ bool follows(Key key, Key prefix) const { return end == bits || (key >> end) == (prefix >> end); }
};

/// A histogram of weights from 0 to 1 in shared memory. Each weight is a fixed-point number in units of 2^-60, in three
/// parts of 20 bits that are summed separately: integer sums do not depend on the order, so threads may use atomic
/// additions. All threads of the block must call each function but add(), with a barrier between calls.
struct WeightHistogram {
  static constexpr int bins = 1 << 11, parts = 3, part_bits = 20;
  /// Weights that may be added before a flush without overflowing the 32 bits of a part.
  static constexpr int most_added = 1 << 11;

  union {
    unsigned sums[parts * bins];
    double weights[bins];  // after collect()
  };

  __device__ void clear() {
    for (int i = int(threadIdx.x); i < parts * bins; i += int(blockDim.x)) sums[i] = 0;
  }

  __device__ void add(int bin, double weight) {
    auto left = static_cast<unsigned long long>(__double2ll_rn(weight * 0x1p60));
    for (int part = parts - 1; part >= 0; --part) {
      // The highest part may have one bit more, for a weight of 1.
      const auto own = static_cast<unsigned>(part > 0 ? left & ((1u << part_bits) - 1) : left);
      left >>= part_bits;
      if (own != 0) atomicAdd(&sums[part * bins + bin], own);
    }
  }

  /// Adds everything to (parts, bins) in device memory and clears the histogram.
  __device__ void flush(unsigned long long* to) {
    for (int i = int(threadIdx.x); i < parts * bins; i += int(blockDim.x)) {
      if (sums[i] == 0) continue;
      atomicAdd(&to[i], static_cast<unsigned long long>(sums[i]));
      sums[i] = 0;
    }
  }

  /// Fetches the weights of all bins from device memory, which is cleared; overwrites the sums held here. `threads`:
  /// the size of the block.
  template <int threads>
  __device__ void collect(unsigned long long* from) {
    static_assert(bins % threads == 0);
    // All loads before any store, so that their latencies overlap.
    double weight[bins / threads];
#pragma unroll
    for (int i = 0; i < bins / threads; ++i) {
      weight[i] = 0;
#pragma unroll
      for (int part = parts - 1; part >= 0; --part) {
        weight[i] = (weight[i] + double(__ldcg(&from[part * bins + i * threads + int(threadIdx.x)]))) * 0x1p-20;
      }
    }
    for (int i = 0; i < bins / threads; ++i) weights[i * threads + int(threadIdx.x)] = weight[i];
    for (int i = int(threadIdx.x); i < parts * bins; i += threads) from[i] = 0;
  }
};

}  // namespace moe_mamba::inline v0_2::cuda::detail
