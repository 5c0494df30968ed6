#pragma once

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/cuda/attention/cache.cuh"
#include "moe_mamba/cuda/attention/rows.cuh"
#include "moe_mamba/cuda/attention/tensor_backward.cuh"
#include "moe_mamba/cuda/attention/tensor_tile.cuh"
#include "moe_mamba/cuda/attention/tile.cuh"
#include "moe_mamba/cuda/common/launch.cuh"
#include "moe_mamba/cuda/common/reduce.cuh"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/device.hpp"

/// Causal attention on a CUDA device, backward; the contract is in ops/attention.hpp. With the symbols of forward.cuh
/// and the weights p_ij = exp(s_ij - log_sum_i), which are recomputed from the saved log_sum = m + log(l):
///
///   D_i = y_i · dy_i              ds_ij = p_ij (dy_i · v_j - D_i)
///   dq_i = Σ_j ds_ij k_j / sqrt(d)    dk_j = Σ_i ds_ij q_i / sqrt(d)    dv_j = Σ_i p_ij dy_i
///
/// Three launches: D of all rows; blocks of queries, which iterate over tiles of keys for dq; blocks of keys, which
/// iterate over tiles of the queries that attend to them for dk and dv. Each sum thus has one owner and a fixed order,
/// at the cost of two products more than with atomic additions.
namespace moe_mamba::inline v0_2::cuda {

namespace detail {

/// Initialises dk and dv of the call's own rows with the gradients with respect to the cache slots that they were
/// written to; these slots then accumulate the gradients of cached rows.
template <class C, int d>
__global__ void __launch_bounds__(256)
    attention_init_gradients_kernel(const __grid_constant__ CausalAttentionBackward<C, d> attention,
                                    const __grid_constant__ LaunchSequences<AttentionSequence> sequences,
                                    Index blocks) {
  using T = compute_t<C>;
  const AttentionCache<d> cache(attention.heads);
  const Index sequence = blockIdx.x / blocks, block = blockIdx.x % blocks;
  const Index first_row = sequences.row_of<SequenceKind::either>(sequence),
              length = sequences.length_of<SequenceKind::either>(sequence);
  if (length == 0) return;
  const SeenRows seen(read_position(attention.saved_state + sequence * cache.size() + cache.position()),
                      attention.heads.context);
  T* const slots = attention.dstate.data == nullptr ? nullptr : attention.dstate.sequence(sequence);
  const Index columns = attention.heads.key_values * d;
  for (Index i = block * 256 + threadIdx.x; i < length * columns; i += blocks * 256) {
    const Index t = i / columns, column = i % columns, head = column / d;
    const bool kept = slots != nullptr && t >= length - attention.heads.context;
    T dk = T(0), dv = T(0);
    if (kept) {
      const Index offset = seen.slot(seen.cached + t) * d + column % d;
      T* const key = slots + cache.keys(head) + offset;
      T* const value = slots + cache.values(head) + offset;
      dk = *key, dv = *value;
      *key = *value = T(0);
    }
    attention.dk(first_row + t, column) = static_cast<C>(dk);
    attention.dv(first_row + t, column) = static_cast<C>(dv);
  }
  if (slots != nullptr && block == 0 && threadIdx.x < position_digits) slots[cache.position() + threadIdx.x] = T(0);
}

/// One warp: D = y · dy of a row and head.
template <class C, int d>
__global__ void __launch_bounds__(128)
    attention_means_kernel(const __grid_constant__ CausalAttentionBackward<C, d> attention, compute_t<C>* means) {
  using T = compute_t<C>;
  const Index index = Index{blockIdx.x} * 4 + warp_index(), heads = attention.heads.queries;
  if (index >= attention.shape.tokens() * heads) return;
  const Index row = index / heads, column = index % heads * d;
  T sum = T(0);
  for (int i = lane_index(); i < d; i += warp_size) {
    sum = fma(static_cast<T>(attention.y(row, column + i)), static_cast<T>(attention.dy(row, column + i)), sum);
  }
  sum = warp_sum(sum);
  if (lane_index() == 0) means[index] = sum;
}

template <class T, int d>
struct AttentionBackwardStorage {
  using Tile = AttentionTile<T, d>;
  T own[2][Tile::own_rows][Tile::stride];     // queries and dy, or keys and values
  T lanes[2][Tile::lane_rows][Tile::stride];  // keys and values, or queries and dy
};

/// One block: a tile of query rows of one task.
template <class C, int d>
__global__ void __launch_bounds__(AttentionTile<compute_t<C>, d>::threads)
    attention_queries_backward_kernel(const __grid_constant__ CausalAttentionBackward<C, d> attention,
                                      const __grid_constant__ AttentionTiles tiles, const compute_t<C>* means) {
  using T = compute_t<C>;
  using Tile = AttentionTile<T, d>;
  extern __shared__ __align__(16) unsigned char shared[];
  auto& storage = *reinterpret_cast<AttentionBackwardStorage<T, d>*>(shared);
  const int lane = lane_index(), warp = warp_index();
  const AttentionBackwardTask<C, d> task(attention, tiles.place());
  const Index group = attention.heads.group(), row = task.tile * Tile::own_rows, own_row = row + warp * Tile::own;
  const int count = static_cast<int>(min(Index{Tile::own_rows}, task.length * group - row));
  const auto at = [&](Index r, const MatrixView<const C>& rows) {
    return OwnRow<C>{rows.row(task.first_row + r / group) + (task.head * group + r % group) * d};
  };
  load_tile<T, d>([&](int r) { return at(row + r, attention.q); }, count, Tile::own_rows, score_scale<T>(d),
                  storage.own[0][0]);
  load_tile<T, d>([&](int r) { return at(row + r, attention.dy); }, count, Tile::own_rows, T(1), storage.own[1][0]);
  T sums[Tile::own][Tile::columns] = {}, log_sums[Tile::own], row_means[Tile::own];
#pragma unroll
  for (int r = 0; r < Tile::own; ++r) {
    const bool there = warp * Tile::own + r < count;
    const Index index =
        (task.first_row + (own_row + r) / group) * attention.heads.queries + task.head * group + (own_row + r) % group;
    log_sums[r] = there ? attention.log_sums[index] : T(0);
    row_means[r] = there ? means[index] : T(0);
  }
  const Index end = task.seen.last((row + count - 1) / group);
  for (Index first = task.seen.first(row / group); first < end; first += Tile::lane_rows) {
    const int keys = static_cast<int>(min(Index{Tile::lane_rows}, end - first));
    __syncthreads();
    load_tile<T, d>([&](int j) { return task.keys.row(first + j); }, keys, Tile::lane_rows, T(1), storage.lanes[0][0]);
    load_tile<T, d>([&](int j) { return task.values.row(first + j); }, keys, Tile::lane_rows, T(1),
                    storage.lanes[1][0]);
    __syncthreads();
    T weights[Tile::own], dweights[Tile::own];
    unsigned masks[Tile::own];
    tile_dots<T, d>(storage.own[0][warp * Tile::own], storage.lanes[0][lane], weights);
    tile_dots<T, d>(storage.own[1][warp * Tile::own], storage.lanes[1][lane], dweights);
#pragma unroll
    for (int r = 0; r < Tile::own; ++r) {
      const Index step = (own_row + r) / group, j = first + lane;
      const bool sees = warp * Tile::own + r < count && j >= task.seen.first(step) && j < task.seen.last(step);
      masks[r] = __ballot_sync(full_mask, sees);
      weights[r] = sees ? exp(weights[r] - log_sums[r]) * (dweights[r] - row_means[r]) : T(0);
    }
    add_weighted<T, d>(weights, masks, storage.lanes[0][0], sums);
  }
#pragma unroll
  for (int r = 0; r < Tile::own; ++r) {
    if (warp * Tile::own + r >= count) break;
    const Index t = task.first_row + (own_row + r) / group, h = task.head * group + (own_row + r) % group;
#pragma unroll
    for (int c = 0; c < Tile::columns; ++c) {
      const int column = lane + c * warp_size;
      if (column < d) attention.dq(t, h * d + column) = static_cast<C>(score_scale<T>(d) * sums[r][c]);
    }
  }
}

/// One block: a tile of keys of one task.
template <class C, int d>
__global__ void __launch_bounds__(AttentionTile<compute_t<C>, d>::threads)
    attention_keys_backward_kernel(const __grid_constant__ CausalAttentionBackward<C, d> attention,
                                   const __grid_constant__ AttentionTiles tiles, const compute_t<C>* means) {
  using T = compute_t<C>;
  using Tile = AttentionTile<T, d>;
  extern __shared__ __align__(16) unsigned char shared[];
  auto& storage = *reinterpret_cast<AttentionBackwardStorage<T, d>*>(shared);
  const int lane = lane_index(), warp = warp_index();
  const AttentionBackwardTask<C, d> task(attention, tiles.place());
  const Index group = attention.heads.group(), length = task.length, cached = task.seen.cached;
  const Index key = task.tile * Tile::own_rows, own_key = key + warp * Tile::own;
  const int count = static_cast<int>(min(Index{Tile::own_rows}, cached + length - key));
  if (count <= 0) return;
  load_tile<T, d>([&](int j) { return task.keys.row(key + j); }, count, Tile::own_rows, T(1), storage.own[0][0]);
  load_tile<T, d>([&](int j) { return task.values.row(key + j); }, count, Tile::own_rows, T(1), storage.own[1][0]);
  T dkeys[Tile::own][Tile::columns] = {}, dvalues[Tile::own][Tile::columns] = {};
  // Row j is attended to by steps j - cached … j - cached + N - 1.
  const Index begin = max(Index{0}, key - cached) * group;
  const Index end = min(length, key + count - 1 - cached + attention.heads.context) * group;
  const auto at = [&](Index r, const MatrixView<const C>& rows) {
    return OwnRow<C>{rows.row(task.first_row + r / group) + (task.head * group + r % group) * d};
  };
  for (Index first = begin; first < end; first += Tile::lane_rows) {
    const int rows = static_cast<int>(min(Index{Tile::lane_rows}, end - first));
    __syncthreads();
    load_tile<T, d>([&](int r) { return at(first + r, attention.q); }, rows, Tile::lane_rows, score_scale<T>(d),
                    storage.lanes[0][0]);
    load_tile<T, d>([&](int r) { return at(first + r, attention.dy); }, rows, Tile::lane_rows, T(1),
                    storage.lanes[1][0]);
    __syncthreads();
    const Index row = first + lane, step = row / group;
    const Index index = (task.first_row + step) * attention.heads.queries + task.head * group + (row - step * group);
    const T log_sum = lane < rows ? attention.log_sums[index] : T(0), mean = lane < rows ? means[index] : T(0);
    T weights[Tile::own], dweights[Tile::own];
    unsigned masks[Tile::own];
    tile_dots<T, d>(storage.own[0][warp * Tile::own], storage.lanes[0][lane], weights);
    tile_dots<T, d>(storage.own[1][warp * Tile::own], storage.lanes[1][lane], dweights);
#pragma unroll
    for (int r = 0; r < Tile::own; ++r) {
      const Index j = own_key + r;
      const bool sees =
          lane < rows && warp * Tile::own + r < count && j >= task.seen.first(step) && j < task.seen.last(step);
      masks[r] = __ballot_sync(full_mask, sees);
      weights[r] = sees ? exp(weights[r] - log_sum) : T(0);
      dweights[r] = weights[r] * (dweights[r] - mean);
    }
    add_weighted<T, d>(weights, masks, storage.lanes[1][0], dvalues);
    add_weighted<T, d>(dweights, masks, storage.lanes[0][0], dkeys);
  }
  const AttentionCache<d> cache(attention.heads);
  T* const slots = attention.dstate.data == nullptr ? nullptr : attention.dstate.sequence(task.sequence);
#pragma unroll
  for (int r = 0; r < Tile::own; ++r) {
    if (warp * Tile::own + r >= count) break;
    const Index j = own_key + r;
    const bool is_own = j >= cached;
    if (!is_own && slots == nullptr) continue;
    const Index offset = is_own ? 0 : task.seen.slot(j) * d, row = task.first_row + j - cached;
    const auto add = [&](auto* to, const T(&sums)[Tile::columns]) {
#pragma unroll
      for (int c = 0; c < Tile::columns; ++c) {
        const int column = lane + c * warp_size;
        if (column < d) {
          to[column] = static_cast<std::remove_reference_t<decltype(*to)>>(static_cast<T>(to[column]) + sums[c]);
        }
      }
    };
    if (is_own) {
      add(&attention.dk(row, task.head * d), dkeys[r]);
      add(&attention.dv(row, task.head * d), dvalues[r]);
    } else {
      add(slots + cache.keys(task.head) + offset, dkeys[r]);
      add(slots + cache.values(task.head) + offset, dvalues[r]);
    }
  }
}

template <class C, int d>
bool differentiates_on_tensor_cores(const CausalAttentionBackward<C, d>& attention) {
  if constexpr (attention_has_tensor_tiles<C, d>) {
    return can_vectorise<8>(attention.q, attention.k, attention.v, attention.dy, attention.dq);
  }
  return false;
}

template <class C, int d>
void attend_backward_in_tiles(Device& device, const CausalAttentionBackward<C, d>& attention,
                              const AttentionTiles& queries, const AttentionTiles& keys, const compute_t<C>* means) {
  if constexpr (attention_has_tensor_tiles<C, d>) {
    if (differentiates_on_tensor_cores(attention)) {
      return attend_backward_on_tensor_cores(device, attention, queries, keys, means);
    }
  }
  using T = compute_t<C>;
  constexpr int threads = AttentionTile<T, d>::threads;
  constexpr std::size_t shared = sizeof(AttentionBackwardStorage<T, d>);
  allow_shared(attention_queries_backward_kernel<C, d>, shared);
  allow_shared(attention_keys_backward_kernel<C, d>, shared);
  attention_queries_backward_kernel<C, d>
      <<<queries.blocks, threads, shared, device.stream()>>>(attention, queries, means);
  attention_keys_backward_kernel<C, d><<<keys.blocks, threads, shared, device.stream()>>>(attention, keys, means);
}

/// The backward pass of equally long sequences, or of as many packed ones as fit in a table.
template <class C, int d>
void differentiate_attention(Device& device, const CausalAttentionBackward<C, d>& attention) {
  using T = compute_t<C>;
  const Shape& shape = attention.shape;
  const AttentionHeads& heads = attention.heads;
  if (shape.tokens() == 0) return;
  Arena arena = attention.scratch;
  const Index own =
      differentiates_on_tensor_cores(attention) ? AttentionBackwardTile<d>::own : AttentionTile<T, d>::own_rows;
  const AttentionTiles queries(device, shape, heads.key_values, arena,
                               [&](Index length) { return ceiling_divide(length * heads.group(), own); });
  const AttentionTiles keys(device, shape, heads.key_values, arena, [&](Index length) {
    return length == 0 ? 0 : ceiling_divide(heads.context + length, own);
  });
  const Index blocks = copying_blocks(device, shape.batch, shape.length * heads.key_values * d);
  attention_init_gradients_kernel<C, d>
      <<<static_cast<unsigned>(shape.batch * blocks), 256, 0, device.stream()>>>(attention, queries.sequences, blocks);
  const Index rows = shape.tokens() * heads.queries;
  T* const means = arena.take<T>(rows);
  attention_means_kernel<C, d>
      <<<static_cast<unsigned>(ceiling_divide(rows, 4)), 128, 0, device.stream()>>>(attention, means);
  attend_backward_in_tiles(device, attention, queries, keys, means);
}

}  // namespace detail

/// See ops/attention.hpp. Pointers are to device memory. Neither allocates nor synchronises. Results are bitwise
/// reproducible. Packed sequences take six launches per 160 or so of them. Throws Error if a kernel cannot be launched,
/// as with heads of 256 doubles on a device whose blocks have less than 200 KB of shared memory.
template <class C, int d>
void causal_attention_backward(Device& device, const CausalAttentionBackward<C, d>& attention) {
  static_assert(d >= 1 && d <= 256, "causal_attention_backward: HeadWidth must be from 1 to 256");
  detail::for_sequence_groups(
      attention.shape, detail::SequenceTable<detail::AttentionSequence>::most, [](Index) { return 0; },
      [](int) { return true; },
      [&](const SequenceRun& run) { detail::differentiate_attention(device, attention.slice(run)); });
  check_launch("causal_attention_backward");
}

}  // namespace moe_mamba::inline v0_2::cuda
