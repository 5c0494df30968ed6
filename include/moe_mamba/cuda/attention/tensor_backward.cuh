#pragma once

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/cuda/attention/rows.cuh"
#include "moe_mamba/cuda/attention/tensor_forward.cuh"
#include "moe_mamba/cuda/attention/tensor_tile.cuh"
#include "moe_mamba/cuda/common/launch.cuh"
#include "moe_mamba/cuda/common/mathematics.cuh"
#include "moe_mamba/cuda/common/rounding.cuh"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/device.hpp"

/// Causal attention in bfloat16 on tensor cores, backward: the schedule of backward.cuh with blocks of 64 rows that
/// iterate over tiles of 32. Weights and their gradients are rounded to bfloat16 as operands of products; all sums are
/// in float.
namespace moe_mamba::inline v0_2::cuda::detail {

template <int d>
using AttentionBackwardTile = AttentionTensorTile<d, 32>;

/// Bytes of shared memory: two tiles of the block's own rows and two of the rows that it iterates over.
template <int d>
inline constexpr std::size_t attention_backward_bytes = sizeof(bfloat16) * AttentionBackwardTile<d>::stride * 2 *
                                                        (AttentionBackwardTile<d>::own +
                                                         AttentionBackwardTile<d>::others);

/// The query rows of one task, and the indices of their log_sum and D.
template <int d>
struct QueryRows {
  const CausalAttentionBackward<bfloat16, d>& attention;
  const AttentionBackwardTask<bfloat16, d>& task;
  Index group;

  __device__ QueryRows(const CausalAttentionBackward<bfloat16, d>& of, const AttentionBackwardTask<bfloat16, d>& at)
      : attention(of), task(at), group(of.heads.group()) {}
  __device__ OwnRow<bfloat16> row(const MatrixView<const bfloat16>& rows, Index r) const {
    const Index step = r / group;
    return {rows.row(task.first_row + step) + (task.head * group + (r - step * group)) * d};
  }
  __device__ Index number(Index r) const {
    const Index step = r / group;
    return (task.first_row + step) * attention.heads.queries + task.head * group + (r - step * group);
  }
};

/// One block: a tile of query rows of one task; those that attend to the most keys are launched first.
template <int d>
__global__ void __launch_bounds__(AttentionBackwardTile<d>::threads)
    attention_queries_tensor_kernel(const __grid_constant__ CausalAttentionBackward<bfloat16, d> attention,
                                    const __grid_constant__ AttentionTiles tiles, const float* means) {
  using Tile = AttentionBackwardTile<d>;
  extern __shared__ __align__(16) unsigned char shared[];
  auto* const queries = reinterpret_cast<bfloat16*>(shared);
  bfloat16* const dys = queries + Tile::own * Tile::stride;
  bfloat16 *const keys = dys + Tile::own * Tile::stride, *const values = keys + Tile::others * Tile::stride;
  const int lane = lane_index(), warp = warp_index();
  const AttentionBackwardTask<bfloat16, d> task(attention, tiles.place());
  const QueryRows<d> rows(attention, task);
  const Index row = (task.tiles - 1 - task.tile) * Tile::own;
  const int count = int(min(Index{Tile::own}, task.length * rows.group - row));
  TileVectors<d, Tile::own>([&](int r) { return rows.row(attention.q, row + r); }, count).store(queries);
  TileVectors<d, Tile::own>([&](int r) { return rows.row(attention.dy, row + r); }, count).store(dys);
  Index seen_from[2], seen_to[2];
  float log_sums[2], row_means[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int own = warp * 16 + half * 8 + lane / 4;
    const Index r = row + min(own, count - 1), step = r / rows.group;
    seen_from[half] = task.seen.first(step);
    seen_to[half] = own < count ? task.seen.last(step) : 0;
    log_sums[half] = attention.log_sums[rows.number(r)] * attention_log2e;
    row_means[half] = means[rows.number(r)];
  }
  float sums[d / 8][4] = {};
  const float scale = score_scale<float>(d);
  const Index end = task.seen.last((row + count - 1) / rows.group);
  const Index seen_by_first_to = task.seen.last(row / rows.group),
              seen_by_last_from = task.seen.first((row + count - 1) / rows.group);
  for (Index first = task.seen.first(row / rows.group); first < end; first += Tile::others) {
    const int there = int(min(Index{Tile::others}, end - first));
    const TileVectors<d, Tile::others> next_keys([&](int j) { return task.keys.row(first + j); }, there);
    const TileVectors<d, Tile::others> next_values([&](int j) { return task.values.row(first + j); }, there);
    __syncthreads();
    next_values.store(values);
    const bool has_nonfinite = __syncthreads_or(next_keys.store(keys));
    const bool all_seen = count == Tile::own && first >= seen_by_last_from && first + Tile::others <= seen_by_first_to;
    const SeenColumns seen[2] = {{seen_from[0], seen_to[0], first, Tile::others},
                                 {seen_from[1], seen_to[1], first, Tile::others}};
    float weights[Tile::others / 8][4], dweights[Tile::others / 8][4];
    multiply_rows<d, Tile::others>(queries + warp * 16 * Tile::stride, keys, weights);
    multiply_rows<d, Tile::others>(dys + warp * 16 * Tile::stride, values, dweights);
#pragma unroll
    for (int n = 0; n < Tile::others / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int half = i / 2;
        const float weight = power_of_two(weights[n][i] * (scale * attention_log2e) - log_sums[half]);
        const bool is_seen = seen[half].sees(n * 8 + lane % 4 * 2 + i % 2);
        weights[n][i] = is_seen ? weight * (dweights[n][i] - row_means[half]) : 0.0f;
      }
    }
    if (all_seen || !has_nonfinite) {
      add_weighted_rows<d, Tile::others>(weights, keys, sums);
    } else {
      add_seen_source<d, Tile::others>(weights, keys, seen, sums);
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int own = warp * 16 + half * 8 + lane / 4;
    if (own >= count) continue;
    const Index step = (row + own) / rows.group, head = task.head * rows.group + (row + own - step * rows.group);
    bfloat16* const to = attention.dq.row(task.first_row + step) + head * d + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < d / 8; ++n) {
      *reinterpret_cast<unsigned*>(to + n * 8) = rounded_pair(sums[n][2 * half] * scale, sums[n][2 * half + 1] * scale);
    }
  }
}

/// Which query rows of a tile attend to a key of the block.
struct SeenRowsOfKey {
  const int *from, *to;  // per row: the range of keys that it attends to
  int key;
  __device__ bool sees(int row) const { return (key >= from[row]) & (key < to[row]); }
};

/// One block: a tile of keys of one task.
template <int d>
__global__ void __launch_bounds__(AttentionBackwardTile<d>::threads)
    attention_keys_tensor_kernel(const __grid_constant__ CausalAttentionBackward<bfloat16, d> attention,
                                 const __grid_constant__ AttentionTiles tiles, const float* means) {
  using Tile = AttentionBackwardTile<d>;
  extern __shared__ __align__(16) unsigned char shared[];
  auto* const keys = reinterpret_cast<bfloat16*>(shared);
  bfloat16* const values = keys + Tile::own * Tile::stride;
  bfloat16 *const queries = values + Tile::own * Tile::stride, *const dys = queries + Tile::others * Tile::stride;
  __shared__ float log_sums[Tile::others], row_means[Tile::others];
  __shared__ int seen_from[Tile::others], seen_to[Tile::others];
  const int lane = lane_index(), warp = warp_index();
  const AttentionBackwardTask<bfloat16, d> task(attention, tiles.place());
  const QueryRows<d> rows(attention, task);
  const Index length = task.length, cached = task.seen.cached, key = task.tile * Tile::own;
  const int count = int(min(Index{Tile::own}, cached + length - key));
  if (count <= 0) return;
  TileVectors<d, Tile::own>([&](int j) { return task.keys.row(key + j); }, count).store(keys);
  TileVectors<d, Tile::own>([&](int j) { return task.values.row(key + j); }, count).store(values);
  float dkeys[d / 8][4] = {}, dvalues[d / 8][4] = {};
  const float scale = score_scale<float>(d);
  // Row j is attended to by steps j - cached … j - cached + N - 1.
  const Index begin = max(Index{0}, key - cached) * rows.group;
  const Index end = min(length, key + count - 1 - cached + attention.heads.context) * rows.group;
  for (Index first = begin; first < end; first += Tile::others) {
    const int there = int(min(Index{Tile::others}, end - first));
    const TileVectors<d, Tile::others> next_queries([&](int r) { return rows.row(attention.q, first + r); }, there);
    const TileVectors<d, Tile::others> next_dys([&](int r) { return rows.row(attention.dy, first + r); }, there);
    __syncthreads();
    bool has_nonfinite = next_queries.store(queries);
    has_nonfinite |= next_dys.store(dys);
    if (int(threadIdx.x) < Tile::others) {
      const int other = int(threadIdx.x);
      const bool here = other < there;
      const Index r = first + (here ? other : 0), step = r / rows.group;
      log_sums[other] = attention.log_sums[rows.number(r)] * attention_log2e;
      row_means[other] = means[rows.number(r)];
      // A range of the block's keys, empty for a row that does not exist.
      seen_from[other] = int(min(max(task.seen.first(step) - key, Index{0}), Index{Tile::own}));
      seen_to[other] = here ? int(min(max(task.seen.last(step) - key, Index{0}), Index{count})) : 0;
    }
    has_nonfinite = __syncthreads_or(has_nonfinite);
    const bool all_seen = seen_from[Tile::others - 1] == 0 && seen_to[0] == Tile::own && there == Tile::others;
    const SeenRowsOfKey seen[2] = {{seen_from, seen_to, warp * 16 + lane / 4},
                                   {seen_from, seen_to, warp * 16 + lane / 4 + 8}};
    float weights[Tile::others / 8][4], dweights[Tile::others / 8][4];
    multiply_rows<d, Tile::others>(keys + warp * 16 * Tile::stride, queries, weights);
    multiply_rows<d, Tile::others>(values + warp * 16 * Tile::stride, dys, dweights);
#pragma unroll
    for (int n = 0; n < Tile::others / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = n * 8 + lane % 4 * 2 + i % 2;
        const float weight = power_of_two(weights[n][i] * (scale * attention_log2e) - log_sums[column]);
        const bool is_seen = seen[i / 2].sees(column);
        dweights[n][i] = is_seen ? weight * (dweights[n][i] - row_means[column]) : 0.0f;
        weights[n][i] = is_seen ? weight : 0.0f;
      }
    }
    if (all_seen || !has_nonfinite) {
      add_weighted_rows<d, Tile::others>(weights, dys, dvalues);
      add_weighted_rows<d, Tile::others>(dweights, queries, dkeys);
    } else {
      add_seen_source<d, Tile::others>(weights, dys, seen, dvalues);
      add_seen_source<d, Tile::others>(dweights, queries, seen, dkeys);
    }
  }
  const AttentionCache<d> cache(attention.heads);
  float* const slots = attention.dstate.data == nullptr ? nullptr : attention.dstate.sequence(task.sequence);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int own = warp * 16 + half * 8 + lane / 4;
    const Index j = key + own;
    if (own >= count || (j < cached && slots == nullptr)) continue;
    const auto add = [&](auto* to, const float(&sums)[d / 8][4], float factor) {
      using To = std::remove_reference_t<decltype(*to)>;
      to += lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < d / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          to[n * 8 + i] = static_cast<To>(static_cast<float>(to[n * 8 + i]) + sums[n][2 * half + i] * factor);
        }
      }
    };
    if (j >= cached) {
      add(&attention.dk(task.first_row + j - cached, task.head * d), dkeys, scale);
      add(&attention.dv(task.first_row + j - cached, task.head * d), dvalues, 1.0f);
    } else {
      const Index offset = task.seen.slot(j) * d;
      add(slots + cache.keys(task.head) + offset, dkeys, scale);
      add(slots + cache.values(task.head) + offset, dvalues, 1.0f);
    }
  }
}

template <int d>
void attend_backward_on_tensor_cores(Device& device, const CausalAttentionBackward<bfloat16, d>& attention,
                                     const AttentionTiles& queries, const AttentionTiles& keys, const float* means) {
  using Tile = AttentionBackwardTile<d>;
  constexpr std::size_t bytes = attention_backward_bytes<d>;
  allow_shared(attention_queries_tensor_kernel<d>, bytes);
  allow_shared(attention_keys_tensor_kernel<d>, bytes);
  attention_queries_tensor_kernel<d>
      <<<queries.blocks, Tile::threads, bytes, device.stream()>>>(attention, queries, means);
  attention_keys_tensor_kernel<d><<<keys.blocks, Tile::threads, bytes, device.stream()>>>(attention, keys, means);
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
