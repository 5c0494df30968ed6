#pragma once

#include "moe_mamba/cuda/block/reduce.cuh"

/// Sums of weights by a digit of their keys, for finding where sorted weights reach a sum without sorting them.
namespace moe_mamba::cuda::detail {

/// Digits of up to 11 bits, the highest first: which bits of a key the digit number `digit` has.
template <class Key>
struct KeyDigit {
  static constexpr int bits = 8 * int(sizeof(Key)), width = 11;
  static constexpr int count = (bits + width - 1) / width;

  int end, begin;  // bits begin … end - 1

  __host__ __device__ explicit KeyDigit(int digit) : end(bits - width * digit), begin(end > width ? end - width : 0) {}
  __device__ int of(Key key) const { return int(key >> begin) & ((1 << (end - begin)) - 1); }
  /// Whether two keys are equal in the digits before this one.
  __device__ bool follows(Key key, Key prefix) const { return end == bits || (key >> end) == (prefix >> end); }
};

/// A histogram of weights from 0 to 1 in shared memory. Each weight is a whole number of 2^-60, in three parts of 20 bits
/// that are summed on their own: such sums are the same in any order, so that threads may add as they come.
struct WeightHistogram {
  static constexpr int bins = 1 << 11, parts = 3, part_bits = 20;
  /// Weights that may be added before a flush: their parts fit into 32 bits.
  static constexpr int most_added = 1 << 11;

  unsigned sums[parts * bins];

  /// The whole block calls; then it must meet.
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

  /// Adds everything to (parts, bins) in device memory and begins anew. The whole block calls; it must have met before,
  /// and must meet again.
  __device__ void flush(unsigned long long* to) {
    for (int i = int(threadIdx.x); i < parts * bins; i += int(blockDim.x)) {
      if (sums[i] == 0) continue;
      atomicAdd(&to[i], static_cast<unsigned long long>(sums[i]));
      sums[i] = 0;
    }
  }

  /// The weight in a bin of device memory, which is left empty.
  static __device__ double take(unsigned long long* from, int bin) {
    double sum = 0;
    for (int part = parts - 1; part >= 0; --part) {
      sum = (sum + double(__ldcg(&from[part * bins + bin]))) * 0x1p-20;
      from[part * bins + bin] = 0;
    }
    return sum;
  }
};

}  // namespace moe_mamba::cuda::detail
