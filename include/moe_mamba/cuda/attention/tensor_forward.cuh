#pragma once

#include <numbers>

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cuda/attention/rows.cuh"
#include "moe_mamba/cuda/attention/tensor_tile.cuh"
#include "moe_mamba/cuda/common/launch.cuh"
#include "moe_mamba/cuda/common/mathematics.cuh"
#include "moe_mamba/cuda/common/rounding.cuh"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/device.hpp"

/// Causal attention in bfloat16 on tensor cores, forward: the schedule of forward.cuh with blocks of 64 rows of queries
/// and tiles of 64 keys; maxima, weights and sums are float.
namespace moe_mamba::inline v0_2::cuda::detail {

template <int d>
using AttentionForwardTile = AttentionTensorTile<d, 64>;

/// exp(x) = 2^(x attention_log2e)
inline constexpr float attention_log2e = std::numbers::log2e_v<float>;

/// One block: a tile of query rows of one task; those that attend to the most keys are launched first.
template <int d>
__global__ void __launch_bounds__(AttentionForwardTile<d>::threads)
    attention_tensor_kernel(const __grid_constant__ CausalAttention<bfloat16, d> attention,
                            const __grid_constant__ AttentionTiles tiles) {
  using Tile = AttentionForwardTile<d>;
  extern __shared__ __align__(16) unsigned char shared[];
  auto* const queries = reinterpret_cast<bfloat16*>(shared);
  bfloat16 *const keys = queries + Tile::own * Tile::stride, *const values = keys + Tile::others * Tile::stride;
  const int lane = lane_index(), warp = warp_index();
  const AttentionTask<bfloat16, d> task(attention, tiles.place());
  const Index group = attention.heads.group(), row = (task.tiles - 1 - task.tile) * Tile::own;
  const int count = int(min(Index{Tile::own}, task.length * group - row));
  TileVectors<d, Tile::own>(
      [&](int r) {
        const Index step = (row + r) / group;
        return OwnRow<bfloat16>{attention.q.row(task.first_row + step) +
                                (task.head * group + (row + r - step * group)) * d};
      },
      count)
      .store(queries);
  // For each of the lane's two rows: the range of keys that it attends to, the largest score and the sum of weights.
  Index seen_from[2], seen_to[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int own = warp * 16 + half * 8 + lane / 4;
    const Index step = (row + min(own, count - 1)) / group;
    seen_from[half] = task.seen.first(step);
    seen_to[half] = own < count ? task.seen.last(step) : 0;
  }
  float sums[d / 8][4] = {}, largest[2] = {-INFINITY, -INFINITY}, totals[2] = {};
  const float scale = score_scale<float>(d) * attention_log2e;
  const Index end = task.seen.last((row + count - 1) / group);
  const Index seen_by_first_to = task.seen.last(row / group),
              seen_by_last_from = task.seen.first((row + count - 1) / group);
  for (Index first = task.seen.first(row / group); first < end; first += Tile::others) {
    const int there = int(min(Index{Tile::others}, end - first));
    const TileVectors<d, Tile::others> next_keys([&](int j) { return task.keys.row(first + j); }, there);
    const TileVectors<d, Tile::others> next_values([&](int j) { return task.values.row(first + j); }, there);
    __syncthreads();
    next_keys.store(keys);
    const bool has_nonfinite = __syncthreads_or(next_values.store(values));
    const bool all_seen = count == Tile::own && first >= seen_by_last_from && first + Tile::others <= seen_by_first_to;
    const SeenColumns seen[2] = {{seen_from[0], seen_to[0], first, Tile::others},
                                 {seen_from[1], seen_to[1], first, Tile::others}};
    float weights[Tile::others / 8][4];
    multiply_rows<d, Tile::others>(queries + warp * 16 * Tile::stride, keys, weights);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float most = -INFINITY;
#pragma unroll
      for (int n = 0; n < Tile::others / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& weight = weights[n][2 * half + i];
          weight = seen[half].sees(n * 8 + lane % 4 * 2 + i) ? weight * scale : -INFINITY;
          most = fmaxf(most, weight);
        }
      }
      const float before = largest[half];
      const float now = fmaxf(before, reduce_row(most, [](float a, float b) { return fmaxf(a, b); }));
      largest[half] = now;
      const float base = now == -INFINITY ? 0.0f : now;  // no key so far
      const float factor = power_of_two(before - base);
      totals[half] *= factor;
#pragma unroll
      for (int n = 0; n < Tile::others / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& weight = weights[n][2 * half + i];
          weight = power_of_two(weight - base);
          totals[half] += weight;
        }
      }
#pragma unroll
      for (int n = 0; n < d / 8; ++n) sums[n][2 * half] *= factor, sums[n][2 * half + 1] *= factor;
    }
    if (all_seen || !has_nonfinite) {
      add_weighted_rows<d, Tile::others>(weights, values, sums);
    } else {
      add_seen_source<d, Tile::others>(weights, values, seen, sums);
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float total = reduce_row(totals[half], [](float a, float b) { return a + b; });
    const int own = warp * 16 + half * 8 + lane / 4;
    if (own >= count) continue;
    const Index step = (row + own) / group, t = task.first_row + step;
    const Index head = task.head * group + (row + own - step * group);
    bfloat16* const to = attention.y.row(t) + head * d + lane % 4 * 2;
    const float share = 1.0f / total;
#pragma unroll
    for (int n = 0; n < d / 8; ++n) {
      *reinterpret_cast<unsigned*>(to + n * 8) = rounded_pair(sums[n][2 * half] * share, sums[n][2 * half + 1] * share);
    }
    if (lane % 4 == 0 && attention.log_sums != nullptr) {
      attention.log_sums[t * attention.heads.queries + head] = largest[half] / attention_log2e + logf(total);
    }
  }
}

template <int d>
void attend_on_tensor_cores(Device& device, const CausalAttention<bfloat16, d>& attention,
                            const AttentionTiles& tiles) {
  using Tile = AttentionForwardTile<d>;
  constexpr std::size_t bytes = sizeof(bfloat16) * (Tile::own + 2 * Tile::others) * Tile::stride;
  allow_shared(attention_tensor_kernel<d>, bytes);
  attention_tensor_kernel<d><<<tiles.blocks, Tile::threads, bytes, device.stream()>>>(attention, tiles);
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
