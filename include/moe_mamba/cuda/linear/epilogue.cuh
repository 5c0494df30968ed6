#pragma once

#include <type_traits>

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/cuda/common/rounding.cuh"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/ops/linear.hpp"

/// The epilogue of products on tensor cores: from their sums to device memory.
namespace moe_mamba::inline v0_2::cuda::detail {

/// Four neighbours of a row, in CUDA's own type: the compiler splits loads of another here.
__device__ inline float4 load_four(const float* from) { return *reinterpret_cast<const float4*>(from); }
__device__ inline float4 load_four(const bfloat16* from) {
  const auto pairs = *reinterpret_cast<const uint2*>(from);
  return {__uint_as_float(pairs.x << 16), __uint_as_float(pairs.x & 0xffff0000u), __uint_as_float(pairs.y << 16),
          __uint_as_float(pairs.y & 0xffff0000u)};
}
__device__ inline void store_four(float* to, float4 values) { *reinterpret_cast<float4*>(to) = values; }
__device__ inline void store_four(bfloat16* to, float4 values) {
  *reinterpret_cast<uint2*>(to) = uint2{rounded_pair(values.x, values.y), rounded_pair(values.z, values.w)};
}

/// Four neighbouring sums of a row, of those that lie in `part` (eight rows) and `first` (two times eight columns): the
/// four lanes that share a row have two neighbouring sums each of every eight; they swap half of theirs with the lane
/// beside them for one of the next eight, so that all together have sixteen in a row. Whole warps call.
template <class Product>
__device__ inline float4 four_sums(const Product& product, int part, int first) {
  const bool odd = int(threadIdx.x) % 2 != 0;
  const float(&low)[4] = product.sums[part / 2][first];
  const float(&high)[4] = product.sums[part / 2][first + 1];
  const float low_x = low[part % 2 * 2], low_y = low[part % 2 * 2 + 1];
  const float high_x = high[part % 2 * 2], high_y = high[part % 2 * 2 + 1];
  const float other_x = __shfl_xor_sync(full_mask, odd ? low_x : high_x, 1);
  const float other_y = __shfl_xor_sync(full_mask, odd ? low_y : high_y, 1);
  return {odd ? other_x : low_x, odd ? other_y : low_y, odd ? high_x : other_x, odd ? high_y : other_y};
}
/// The column of the first of them, from that of `first` on.
__device__ inline int first_of_four() {
  const int lane = lane_index();
  return lane % 2 * 8 + lane % 4 / 2 * 4;
}

/// Writes a tile's sums to `out`, a MatrixView or ResultRows that begins at the tile's first row and column, or adds them
/// to it. Reads a batch of
/// what it adds to before it writes, since the compiler cannot know that they do not overlap. Whole warps call.
template <class Product, class Rows>
__device__ inline void write_sums(const Product& product, const Rows& out, Into into) {
  using C = std::remove_reference_t<decltype(*out.data)>;
  constexpr int parts = Product::column_parts, batch = parts >= 32 ? 16 : parts < 8 ? parts : 8;
  const int lane = lane_index();
  const bool fours = can_vectorise<4>(out.data, out.stride);
#pragma unroll
  for (int part = 0; part < 2 * Product::row_parts; ++part) {
    const int row = Product::first_row() + part * 8 + lane / 4;
    C* const line = row < out.rows ? out.row(row) : nullptr;
#pragma unroll
    for (int first = 0; first < parts; first += batch) {
      const int column = Product::first_column() + first * 8 + first_of_four();
      C* const to = line + column;
      const int left = row < out.rows ? int(min(out.columns - column, Index{batch * 8})) : 0;
      float4 before[batch / 2] = {};
      if (into == Into::add) {
#pragma unroll
        for (int j = 0; j < batch / 2; ++j) {
          const int there = left - j * 16;
          if (fours && there >= 4) {
            before[j] = load_four(to + j * 16);
          } else {
            if (there > 0) before[j].x = static_cast<float>(to[j * 16]);
            if (there > 1) before[j].y = static_cast<float>(to[j * 16 + 1]);
            if (there > 2) before[j].z = static_cast<float>(to[j * 16 + 2]);
            if (there > 3) before[j].w = static_cast<float>(to[j * 16 + 3]);
          }
        }
      }
#pragma unroll
      for (int j = 0; j < batch / 2; ++j) {
        const float4 sums = four_sums(product, part, first + j * 2);
        const float4 after{before[j].x + sums.x, before[j].y + sums.y, before[j].z + sums.z, before[j].w + sums.w};
        const int there = left - j * 16;
        if (fours && there >= 4) {
          store_four(to + j * 16, after);
        } else {
          if (there > 0) to[j * 16] = static_cast<C>(after.x);
          if (there > 1) to[j * 16 + 1] = static_cast<C>(after.y);
          if (there > 2) to[j * 16 + 2] = static_cast<C>(after.z);
          if (there > 3) to[j * 16 + 3] = static_cast<C>(after.w);
        }
      }
    }
  }
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
