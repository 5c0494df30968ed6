#pragma once

#include <algorithm>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/cuda/attention/cache.cuh"
#include "moe_mamba/cuda/attention/rows.cuh"
#include "moe_mamba/cuda/attention/split_keys.cuh"
#include "moe_mamba/cuda/attention/tensor_forward.cuh"
#include "moe_mamba/cuda/attention/tensor_tile.cuh"
#include "moe_mamba/cuda/attention/tile.cuh"
#include "moe_mamba/cuda/common/launch.cuh"
#include "moe_mamba/cuda/common/reduce.cuh"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/device.hpp"

/// Causal attention on a CUDA device, forward; the contract is in ops/attention.hpp. For a row i of queries and the
/// keys j that it attends to:
///
///   s_j = q_i · k_j / sqrt(d)      y_i = Σ_j exp(s_j - m) v_j / l,  m = max_j s_j,  l = Σ_j exp(s_j - m)
///
/// A task is the queries of one sequence whose heads share keys; its rows are those heads' queries of all steps. A
/// block takes some rows of a task and iterates over their keys in tiles, with a running maximum and sum (Dao et al.
/// 2022, arXiv 2205.14135):
///
///   load its rows of q, scaled
///   for each tile of keys:
///     barrier; load k and v of the tile → shared memory; barrier
///     s = q kᵀ, masked to what each row attends to
///     m' = max(m, max_j s_j);  w = exp(s - m');  l ← l exp(m - m') + Σ_j w_j
///     y ← y exp(m - m') + w v
///   write y / l and, for the backward pass, m + log(l)
///
/// Tiles are 64 by 64 on tensor cores (tensor_forward.cuh) if activations are bfloat16, the head width is a multiple of
/// 16 up to 128, and rows are aligned to 16 bytes; otherwise 32 keys, one per lane, with multiply-adds in the compute
/// type. A few queries have separate kernels (split_keys.cuh).
namespace moe_mamba::inline v0_2::cuda {

namespace detail {

template <class T, int d>
struct AttentionStorage {
  using Tile = AttentionTile<T, d>;
  T queries[Tile::own_rows][Tile::stride];
  T keys[Tile::lane_rows][Tile::stride];
  T values[Tile::lane_rows][Tile::stride];
};

/// One block: a tile of query rows of one task.
template <class C, int d>
__global__ void __launch_bounds__(AttentionTile<compute_t<C>, d>::threads)
    attention_kernel(const __grid_constant__ CausalAttention<C, d> attention,
                     const __grid_constant__ AttentionTiles tiles) {
  using T = compute_t<C>;
  using Tile = AttentionTile<T, d>;
  extern __shared__ __align__(16) unsigned char shared[];
  auto& storage = *reinterpret_cast<AttentionStorage<T, d>*>(shared);
  const int lane = lane_index(), warp = warp_index();
  const AttentionTask<C, d> task(attention, tiles.place());
  const Index group = attention.heads.group(), row = task.tile * Tile::own_rows, own_row = row + warp * Tile::own;
  const int count = static_cast<int>(min(Index{Tile::own_rows}, task.length * group - row));
  const auto query = [&](Index r, const MatrixView<const C>& rows) {
    return OwnRow<C>{rows.row(task.first_row + r / group) + (task.head * group + r % group) * d};
  };
  load_tile<T, d>([&](int r) { return query(row + r, attention.q); }, count, Tile::own_rows, score_scale<T>(d),
                  storage.queries[0]);
  T sums[Tile::own][Tile::columns] = {}, largest[Tile::own], totals[Tile::own] = {};
#pragma unroll
  for (int r = 0; r < Tile::own; ++r) largest[r] = -T(INFINITY);
  const Index end = task.seen.last((row + count - 1) / group);
  for (Index first = task.seen.first(row / group); first < end; first += Tile::lane_rows) {
    const int keys = static_cast<int>(min(Index{Tile::lane_rows}, end - first));
    __syncthreads();
    load_tile<T, d>([&](int j) { return task.keys.row(first + j); }, keys, Tile::lane_rows, T(1), storage.keys[0]);
    load_tile<T, d>([&](int j) { return task.values.row(first + j); }, keys, Tile::lane_rows, T(1), storage.values[0]);
    __syncthreads();
    T weights[Tile::own];
    unsigned masks[Tile::own];
    tile_dots<T, d>(storage.queries[warp * Tile::own], storage.keys[lane], weights);
#pragma unroll
    for (int r = 0; r < Tile::own; ++r) {
      const Index step = (own_row + r) / group, j = first + lane;
      const bool sees = warp * Tile::own + r < count && j >= task.seen.first(step) && j < task.seen.last(step);
      masks[r] = __ballot_sync(full_mask, sees);
      const T before = largest[r];
      largest[r] = fmax(before, warp_largest(sees ? weights[r] : -T(INFINITY)));
      weights[r] = sees ? exp(weights[r] - largest[r]) : T(0);
      const T factor = before == largest[r] ? T(1) : exp(before - largest[r]);
      totals[r] = totals[r] * factor + warp_sum(weights[r]);
#pragma unroll
      for (int c = 0; c < Tile::columns; ++c) sums[r][c] *= factor;
    }
    add_weighted<T, d>(weights, masks, storage.values[0], sums);
  }
#pragma unroll
  for (int r = 0; r < Tile::own; ++r) {
    if (warp * Tile::own + r >= count) break;
    const Index t = task.first_row + (own_row + r) / group, h = task.head * group + (own_row + r) % group;
#pragma unroll
    for (int c = 0; c < Tile::columns; ++c) {
      const int column = lane + c * warp_size;
      if (column < d) attention.y(t, h * d + column) = static_cast<C>(sums[r][c] / totals[r]);
    }
    if (lane == 0 && attention.log_sums != nullptr) {
      attention.log_sums[t * attention.heads.queries + h] = largest[r] + log(totals[r]);
    }
  }
}

template <class C, int d>
bool attends_on_tensor_cores(const CausalAttention<C, d>& attention) {
  if constexpr (attention_has_tensor_tiles<C, d>) {
    return can_vectorise<8>(attention.q, attention.k, attention.v, attention.y);
  }
  return false;
}

template <class C, int d>
void attend_in_tiles(Device& device, const CausalAttention<C, d>& attention, const AttentionTiles& tiles) {
  if constexpr (attention_has_tensor_tiles<C, d>) {
    if (attends_on_tensor_cores(attention)) return attend_on_tensor_cores(device, attention, tiles);
  }
  using Tile = AttentionTile<compute_t<C>, d>;
  constexpr std::size_t shared = sizeof(AttentionStorage<compute_t<C>, d>);
  allow_shared(attention_kernel<C, d>, shared);
  attention_kernel<C, d><<<tiles.blocks, Tile::threads, shared, device.stream()>>>(attention, tiles);
}

/// Equally long sequences, or as many packed ones as fit in a table.
template <class C, int d>
void attend(Device& device, const CausalAttention<C, d>& attention) {
  const Shape& shape = attention.shape;
  const AttentionHeads& heads = attention.heads;
  const AttentionCache<d> cache(heads);
  if (attention.saved_state != nullptr) {
    const Index blocks = attention.state ? copying_blocks(device, shape.batch, cache.position()) : 1;
    attention_save_kernel<C, d>
        <<<static_cast<unsigned>(shape.batch * blocks), 256, 0, device.stream()>>>(attention, blocks);
  }
  if (shape.tokens() == 0) return;
  Arena arena = attention.scratch;
  const Index own =
      attends_on_tensor_cores(attention) ? AttentionForwardTile<d>::own : AttentionTile<compute_t<C>, d>::own_rows;
  const AttentionTiles tiles(device, shape, heads.key_values, arena, [&](Index length) {
    return AttentionChunks::apply(length, heads) ? 0 : ceiling_divide(length * heads.group(), own);
  });
  if (tiles.blocks > 0) attend_in_tiles(device, attention, tiles);
  // Packed sequences with only a few queries are launched one by one.
  for_sequence_runs(shape, [&](const SequenceRun& run) {
    if (run.shape.length == 0 || !AttentionChunks::apply(run.shape.length, heads)) return;
    CausalAttention<C, d> part = attention.slice(run);
    part.scratch = arena;
    attend_by_key_chunks(device, part, run.shape.batch * heads.key_values);
  });
  if (attention.state) {
    const Index kept = std::min(shape.length, heads.context);
    const Index blocks = kept <= 8 ? 1 : copying_blocks(device, shape.batch, kept * heads.key_values * d);
    attention_store_kernel<C, d>
        <<<static_cast<unsigned>(shape.batch * blocks), 256, 0, device.stream()>>>(attention, tiles.sequences, blocks);
    if (blocks > 1) {
      attention_advance_position_kernel<C, d>
          <<<static_cast<unsigned>(ceiling_divide(shape.batch, 128)), 128, 0, device.stream()>>>(attention,
                                                                                                 tiles.sequences);
    }
  }
}

}  // namespace detail

/// See ops/attention.hpp. Pointers are to device memory. Neither allocates nor synchronises. Results are bitwise
/// reproducible. Packed sequences take at most five launches per 160 or so of them, and two for each that has only a
/// few queries. Throws Error if a kernel cannot be launched.
template <class C, int d>
void causal_attention(Device& device, const CausalAttention<C, d>& attention) {
  static_assert(d >= 1 && d <= 256, "causal_attention: HeadWidth must be from 1 to 256");
  if (attention.shape.batch == 0) return;
  detail::for_sequence_groups(
      attention.shape, detail::SequenceTable<detail::AttentionSequence>::most, [](Index) { return 0; },
      [](int) { return true; }, [&](const SequenceRun& run) { detail::attend(device, attention.slice(run)); });
  check_launch("causal_attention");
}

/// Upper bound on either pass's scratch in bytes, for this shape and any smaller one. Packed sequences with only a few
/// queries use the same memory in turn.
template <class C, int d>
std::size_t causal_attention_scratch(const Device& device, Shape shape, const AttentionHeads& heads) {
  const Index batch = shape.lengths == nullptr ? shape.batch : 1;
  const Index tasks = batch * heads.key_values, rows = std::max(heads.group(), detail::AttentionChunks::most_rows);
  using T = compute_t<C>;
  Arena forward, backward;
  forward.take<T>(detail::AttentionChunks::most(device.processors(), tasks) * rows * detail::attention_part<T, d>);
  backward.take<T>(shape.tokens() * heads.queries);
  return 2 * detail::table_bytes<detail::AttentionSequence> + std::max(forward.used(), backward.used());
}

}  // namespace moe_mamba::inline v0_2::cuda
