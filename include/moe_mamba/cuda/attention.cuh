#pragma once

#include <algorithm>

#include "moe_mamba/cuda/attention_tensor.cuh"
#include "moe_mamba/cuda/block/attention_place.cuh"
#include "moe_mamba/cuda/block/attention_tile.cuh"
#include "moe_mamba/cuda/block/reduce.cuh"

/// Causal attention on a CUDA device, forward; the contract is in ops/attention.hpp.
///
/// A block takes some rows of queries (a row being one head of one step, of all heads that share keys) and goes over
/// their keys in tiles, with a running maximum and sum (Dao et al. 2022, arXiv 2205.14135): of 64 on tensor cores where
/// activations are bfloat16, heads of at most 128 numbers that 16 divides, and rows aligned to 16 bytes; else of 32, one a
/// lane, in multiply-adds of the compute type. For few queries, a decoder's step above all, warps go over pieces of the keys
/// instead, which are read once from memory, and a second kernel puts the pieces together.
namespace moe_mamba::cuda {

namespace detail {

template <class T, int d>
struct AttentionStorage {
  using Tile = AttentionTile<T, d>;
  T queries[Tile::own_rows][Tile::stride];
  T keys[Tile::lane_rows][Tile::stride];
  T values[Tile::lane_rows][Tile::stride];
};

/// Block: a tile of rows of queries of one task.
template <class C, int d>
__global__ void __launch_bounds__(AttentionTile<compute_t<C>, d>::threads)
    attention_kernel(const __grid_constant__ CausalAttention<C, d> attention, Index tiles) {
  using T = compute_t<C>;
  using Tile = AttentionTile<T, d>;
  extern __shared__ __align__(16) unsigned char shared[];
  auto& storage = *reinterpret_cast<AttentionStorage<T, d>*>(shared);
  const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
  const AttentionPlace<C, d> place(attention, blockIdx.x / tiles);
  const Index group = attention.heads.group(), row = blockIdx.x % tiles * Tile::own_rows,
              own_row = row + warp * Tile::own;
  const int count = static_cast<int>(min(Index{Tile::own_rows}, query_rows(attention) - row));
  const auto query = [&](Index r, const MatrixView<const C>& rows) {
    return OwnRow<C>{rows.row(place.first_row + r / group) + (place.head * group + r % group) * d};
  };
  load_tile<T, d>([&](int r) { return query(row + r, attention.q); }, count, Tile::own_rows, score_scale<T>(d),
                  storage.queries[0]);
  T sums[Tile::own][Tile::columns] = {}, largest[Tile::own], totals[Tile::own] = {};
#pragma unroll
  for (int r = 0; r < Tile::own; ++r) largest[r] = -T(INFINITY);
  const Index end = place.seen.last((row + count - 1) / group);
  for (Index first = place.seen.first(row / group); first < end; first += Tile::lane_rows) {
    const int keys = static_cast<int>(min(Index{Tile::lane_rows}, end - first));
    __syncthreads();
    load_tile<T, d>([&](int j) { return place.keys.row(first + j); }, keys, Tile::lane_rows, T(1), storage.keys[0]);
    load_tile<T, d>([&](int j) { return place.values.row(first + j); }, keys, Tile::lane_rows, T(1), storage.values[0]);
    __syncthreads();
    T weights[Tile::own];
    unsigned masks[Tile::own];
    tile_dots<T, d>(storage.queries[warp * Tile::own], storage.keys[lane], weights);
#pragma unroll
    for (int r = 0; r < Tile::own; ++r) {
      const Index step = (own_row + r) / group, j = first + lane;
      const bool sees = warp * Tile::own + r < count && j >= place.seen.first(step) && j < place.seen.last(step);
      masks[r] = __ballot_sync(whole_warp, sees);
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
    const Index t = place.first_row + (own_row + r) / group, h = place.head * group + (own_row + r) % group;
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

/// How a few queries are cut into pieces of their keys, each for a warp.
struct AttentionPieces {
  static constexpr Index fewest_keys = 32;  // of a piece
  static constexpr Index most_rows = 8;     // of queries
  Index count;                              // for each task, a multiple of a block's warps

  /// As many as keep the device's warps busy, or as there are keys for.
  AttentionPieces(int processors, Index tasks, Index rows) {
    constexpr Index warps = 4;
    const Index by_keys = (rows + fewest_keys - 1) / fewest_keys;
    const Index by_warps = (Index{processors} * 16 + tasks - 1) / std::max<Index>(tasks, 1);
    count = (std::clamp<Index>(by_warps, 1, by_keys) + warps - 1) / warps * warps;
  }

  /// Pieces of all tasks at most, for this number of tasks and any smaller one.
  static Index most(int processors, Index tasks) { return Index{processors} * 16 + 8 * tasks; }
  static bool apply(Shape shape, const AttentionHeads& heads) {
    return shape.length == 1 || shape.length * heads.group() <= most_rows;
  }
};

/// What a piece leaves for each row of queries: sums over the values, [d], then the largest score and the sum of weights.
template <class C, int d>
inline constexpr Index attention_part = d + 2;

/// Warp: a piece of the keys, for the rows of queries from `first_query` on, at most Rows of them.
template <class C, int d, int Rows>
__global__ void __launch_bounds__(128) attention_piece_kernel(const __grid_constant__ CausalAttention<C, d> attention,
                                                              Index pieces, Index first_query, compute_t<C>* parts) {
  using T = compute_t<C>;
  constexpr int columns = AttentionTile<T, d>::columns, ahead = Rows == 1 ? 8 : 4;  // keys on their way at a time
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  const Index index = Index{blockIdx.x} * 4 + static_cast<int>(threadIdx.x) / warp_size;
  const Index task = index / pieces, piece = index - task * pieces;
  const AttentionPlace<C, d> place(attention, task);
  const Index group = attention.heads.group(), rows = query_rows(attention);
  const int count = static_cast<int>(min(Index{Rows}, rows - first_query));
  const Index begin = place.seen.first(first_query / group);
  const Index end = place.seen.last((first_query + count - 1) / group);
  const Index span = (end - begin + pieces - 1) / pieces;
  const Index first = begin + piece * span, last = min(end, first + span);
  const auto column_of = [&](int c) { return lane + c * warp_size; };
  T q[Rows][columns], sums[Rows][columns] = {}, largest[Rows], totals[Rows] = {};
#pragma unroll
  for (int r = 0; r < Rows; ++r) {
    largest[r] = -T(INFINITY);
    const Index row = first_query + r;
#pragma unroll
    for (int c = 0; c < columns; ++c) {
      q[r][c] = r < count && column_of(c) < d
                    ? static_cast<T>(attention.q(place.first_row + row / group,
                                                 (place.head * group + row % group) * d + column_of(c))) *
                          score_scale<T>(d)
                    : T(0);
    }
  }
  for (Index at = first; at < last; at += ahead) {
    T keys[ahead][columns], values[ahead][columns];
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
      const bool there = at + i < last;
      const auto key = place.keys.row(there ? at + i : first), value = place.values.row(there ? at + i : first);
#pragma unroll
      for (int c = 0; c < columns; ++c) {
        const bool inside = there && column_of(c) < d;
        keys[i][c] = inside ? key[column_of(c)] : T(0);
        values[i][c] = inside ? value[column_of(c)] : T(0);
      }
    }
#pragma unroll
    for (int r = 0; r < Rows; ++r) {
      if (r >= count) break;
      const Index step = (first_query + r) / group, from = place.seen.first(step), to = place.seen.last(step);
      T scores[ahead], most = -T(INFINITY);
#pragma unroll
      for (int i = 0; i < ahead; ++i) {
        T dot = T(0);
#pragma unroll
        for (int c = 0; c < columns; ++c) dot = fma(q[r][c], keys[i][c], dot);
        scores[i] = warp_sum(dot);
        if (at + i >= from && at + i < to && at + i < last) most = fmax(most, scores[i]);
      }
      const T before = largest[r];
      largest[r] = fmax(before, most);
      const T factor = before == largest[r] ? T(1) : exp(before - largest[r]);
      totals[r] *= factor;
#pragma unroll
      for (int c = 0; c < columns; ++c) sums[r][c] *= factor;
#pragma unroll
      for (int i = 0; i < ahead; ++i) {
        if (at + i < from || at + i >= to || at + i >= last) continue;
        const T weight = exp(scores[i] - largest[r]);
        totals[r] += weight;
#pragma unroll
        for (int c = 0; c < columns; ++c) sums[r][c] = fma(weight, values[i][c], sums[r][c]);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < Rows; ++r) {
    if (r >= count) break;
    T* const part = parts + ((task * rows + first_query + r) * pieces + piece) * attention_part<T, d>;
#pragma unroll
    for (int c = 0; c < columns; ++c) {
      if (column_of(c) < d) part[column_of(c)] = sums[r][c];
    }
    if (lane == 0) part[d] = largest[r], part[d + 1] = totals[r];
  }
}

/// Block: puts the pieces of a row of queries together. Each warp takes every fourth piece, in their order.
template <class C, int d>
__global__ void __launch_bounds__(128) attention_join_kernel(const __grid_constant__ CausalAttention<C, d> attention,
                                                             Index pieces, const compute_t<C>* parts) {
  using T = compute_t<C>;
  constexpr int warps = 4, columns = AttentionTile<T, d>::columns;
  __shared__ T warp_sums[warps][columns * warp_size], warp_totals[warps];
  const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
  const Index index = blockIdx.x, rows = query_rows(attention);
  const T* const first = parts + index * pieces * attention_part<T, d>;
  T largest = -T(INFINITY), total = T(0), sums[columns] = {};
  for (Index piece = lane; piece < pieces; piece += warp_size) {
    largest = fmax(largest, first[piece * attention_part<T, d> + d]);
  }
  largest = warp_largest(largest);
#pragma unroll 8
  for (Index piece = warp; piece < pieces; piece += warps) {
    const T* const part = first + piece * attention_part<T, d>;
    const T weights = part[d + 1], factor = weights == T(0) ? T(0) : exp(part[d] - largest);  // sees none of these keys
    total = fma(factor, weights, total);
#pragma unroll
    for (int c = 0; c < columns; ++c) {
      const int column = lane + c * warp_size;
      if (column < d) sums[c] = fma(factor, part[column], sums[c]);
    }
  }
#pragma unroll
  for (int c = 0; c < columns; ++c) warp_sums[warp][lane + c * warp_size] = sums[c];
  if (lane == 0) warp_totals[warp] = total;
  __syncthreads();
  total = (warp_totals[0] + warp_totals[1]) + (warp_totals[2] + warp_totals[3]);
  const Index task = index / rows, row = index - task * rows, group = attention.heads.group();
  const Index sequence = task / attention.heads.key_values, head = task - sequence * attention.heads.key_values;
  const Index t = sequence * attention.shape.length + row / group, h = head * group + row % group;
  for (int column = static_cast<int>(threadIdx.x); column < d; column += warps * warp_size) {
    const T sum = (warp_sums[0][column] + warp_sums[1][column]) + (warp_sums[2][column] + warp_sums[3][column]);
    attention.y(t, h * d + column) = static_cast<C>(sum / total);
  }
  if (threadIdx.x == 0 && attention.log_sums != nullptr) {
    attention.log_sums[t * attention.heads.queries + h] = largest + log(total);
  }
}

/// Blocks of a sequence share out its slots: what was read goes to the saved state.
template <class C, int d>
__global__ void __launch_bounds__(256)
    attention_save_kernel(const __grid_constant__ CausalAttention<C, d> attention, Index blocks) {
  using T = compute_t<C>;
  const AttentionCache<d> cache(attention.heads);
  const Index sequence = blockIdx.x / blocks, block = blockIdx.x % blocks;
  const T* const state = attention.state.data == nullptr ? nullptr : attention.state.sequence(sequence);
  const Index position = state == nullptr ? 0 : read_position(state + cache.position());
  T* const saved = attention.saved_state + sequence * cache.size();
  // Until the ring is full its slots are read from the first on.
  const Index used = min(position, attention.heads.context) * d, head_size = attention.heads.context * d;
  for (Index i = block * 256 + threadIdx.x; i < 2 * attention.heads.key_values * used; i += blocks * 256) {
    const Index at = i / used * head_size + i % used;
    saved[at] = state[at];
  }
  if (block == 0 && threadIdx.x == 0) write_position(position, saved + cache.position());
}

/// Blocks of a sequence share out the call's last rows, which go into the cache. One block alone also moves the position.
template <class C, int d>
__global__ void __launch_bounds__(256)
    attention_keep_kernel(const __grid_constant__ CausalAttention<C, d> attention, Index blocks) {
  using T = compute_t<C>;
  const AttentionCache<d> cache(attention.heads);
  const Index sequence = blockIdx.x / blocks, block = blockIdx.x % blocks, length = attention.shape.length;
  T* const state = attention.state.sequence(sequence);
  const SeenRows seen(read_position(state + cache.position()), attention.heads.context);
  const Index columns = attention.heads.key_values * d, kept = min(length, attention.heads.context);
  __syncthreads();
  for (Index i = block * 256 + threadIdx.x; i < kept * columns; i += blocks * 256) {
    const Index t = length - kept + i / columns, column = i % columns, head = column / d;
    const Index offset = seen.slot(seen.cached + t) * d + column % d;
    state[cache.keys(head) + offset] = static_cast<T>(attention.k(sequence * length + t, column));
    state[cache.values(head) + offset] = static_cast<T>(attention.v(sequence * length + t, column));
  }
  if (blocks == 1 && threadIdx.x == 0) write_position(seen.position + length, state + cache.position());
}

template <class C, int d>
__global__ void __launch_bounds__(128)
    attention_advance_kernel(const __grid_constant__ CausalAttention<C, d> attention) {
  using T = compute_t<C>;
  const Index sequence = Index{blockIdx.x} * 128 + threadIdx.x;
  if (sequence >= attention.shape.batch) return;
  T* const position = attention.state.sequence(sequence) + AttentionCache<d>(attention.heads).position();
  write_position(read_position(position) + attention.shape.length, position);
}

template <class C, int d, int Rows>
void launch_attention_pieces(Device& device, const CausalAttention<C, d>& attention, Index tasks, Index pieces,
                             compute_t<C>* parts) {
  for (Index first = 0; first < query_rows(attention); first += Rows) {
    attention_piece_kernel<C, d, Rows>
        <<<static_cast<unsigned>(tasks * pieces / 4), 128, 0, device.stream()>>>(attention, pieces, first, parts);
  }
}

template <class C, int d>
void attend_in_pieces(Device& device, const CausalAttention<C, d>& attention, Index tasks) {
  using T = compute_t<C>;
  const Index rows = query_rows(attention);
  const AttentionPieces pieces(device.processors(), tasks, attention.heads.context + attention.shape.length);
  Arena arena = attention.scratch;
  T* const parts = arena.take<T>(tasks * rows * pieces.count * attention_part<T, d>);
  if (rows == 1) {
    launch_attention_pieces<C, d, 1>(device, attention, tasks, pieces.count, parts);
  } else {
    launch_attention_pieces<C, d, 4>(device, attention, tasks, pieces.count, parts);
  }
  attention_join_kernel<C, d>
      <<<static_cast<unsigned>(tasks * rows), 128, 0, device.stream()>>>(attention, pieces.count, parts);
}

template <class C, int d>
void attend_in_tiles(Device& device, const CausalAttention<C, d>& attention, Index tasks) {
  if constexpr (attention_has_tensor_tiles<C, d>) {
    if (attention_rows_aligned(attention.q, attention.k, attention.v, attention.y)) {
      return attend_on_tensor_cores(device, attention, tasks);
    }
  }
  using Tile = AttentionTile<compute_t<C>, d>;
  constexpr std::size_t shared = sizeof(AttentionStorage<compute_t<C>, d>);
  allow_shared(attention_kernel<C, d>, shared);
  const Index tiles = (query_rows(attention) + Tile::own_rows - 1) / Tile::own_rows;
  attention_kernel<C, d>
      <<<static_cast<unsigned>(tasks * tiles), Tile::threads, shared, device.stream()>>>(attention, tiles);
}

/// Blocks that share out `elements` of each of `batch` sequences, 256 a time.
inline Index copying_blocks(const Device& device, Index batch, Index elements) {
  const Index enough = (Index{device.processors()} * 8 + batch - 1) / batch;
  return std::clamp<Index>((elements + 255) / 256, 1, enough);
}

}  // namespace detail

/// See ops/attention.hpp. Pointers are to device memory. Nothing is allocated and nothing waits. The same call gives the
/// same bits each time. Throws Error where a kernel cannot be launched.
template <class C, int d>
void causal_attention(Device& device, const CausalAttention<C, d>& attention) {
  if (each_packed_run(attention, [&](const auto& part) { causal_attention(device, part); })) return;
  static_assert(d >= 1 && d <= 256, "causal_attention: HeadWidth must be from 1 to 256");
  const Index batch = attention.shape.batch, tasks = batch * attention.heads.key_values;
  const AttentionCache<d> cache(attention.heads);
  if (batch == 0) return;
  if (attention.saved_state != nullptr) {
    const Index blocks = attention.state ? detail::copying_blocks(device, batch, cache.position()) : 1;
    detail::attention_save_kernel<C, d>
        <<<static_cast<unsigned>(batch * blocks), 256, 0, device.stream()>>>(attention, blocks);
  }
  if (attention.shape.length == 0) return check_launch("causal_attention");
  if (detail::AttentionPieces::apply(attention.shape, attention.heads)) {
    detail::attend_in_pieces(device, attention, tasks);
  } else {
    detail::attend_in_tiles(device, attention, tasks);
  }
  if (attention.state) {
    const Index kept = std::min(attention.shape.length, attention.heads.context);
    const Index blocks = kept <= 8 ? 1 : detail::copying_blocks(device, batch, kept * attention.heads.key_values * d);
    detail::attention_keep_kernel<C, d>
        <<<static_cast<unsigned>(batch * blocks), 256, 0, device.stream()>>>(attention, blocks);
    if (blocks > 1) {
      detail::attention_advance_kernel<C, d>
          <<<static_cast<unsigned>((batch + 127) / 128), 128, 0, device.stream()>>>(attention);
    }
  }
  check_launch("causal_attention");
}

/// Bytes of scratch that either pass needs at most, for this shape and any smaller one.
template <class C, int d>
std::size_t causal_attention_scratch(const Device& device, Shape shape, const AttentionHeads& heads) {
  if (shape.lengths != nullptr) {
    return largest_run_scratch(shape, [&](Shape run) { return causal_attention_scratch<C, d>(device, run, heads); });
  }
  const Index tasks = shape.batch * heads.key_values,
              rows = std::max(heads.group(), detail::AttentionPieces::most_rows);
  using T = compute_t<C>;
  Arena forward, backward;
  forward.take<T>(detail::AttentionPieces::most(device.processors(), tasks) * rows * detail::attention_part<T, d>);
  backward.take<T>(shape.tokens() * heads.queries);
  return std::max(forward.used(), backward.used());
}

}  // namespace moe_mamba::cuda
