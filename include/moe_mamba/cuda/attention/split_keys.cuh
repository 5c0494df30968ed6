#pragma once

#include <algorithm>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cuda/attention/rows.cuh"
#include "moe_mamba/cuda/attention/tile.cuh"
#include "moe_mamba/cuda/common/reduce.cuh"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/device.hpp"

/// Attention for a few queries, above all a decoding step, with the keys split among warps to fill the device
/// (flash-decoding).
///
///   chunk c of the keys:  m_c = max_j s_j,  l_c = Σ_j exp(s_j - m_c),  o_c = Σ_j exp(s_j - m_c) v_j    (a warp each)
///   combined:             m = max_c m_c,    y = Σ_c exp(m_c - m) o_c / Σ_c exp(m_c - m) l_c            (a block a row)
namespace moe_mamba::inline v0_2::cuda::detail {

/// How the keys of a few queries are divided into chunks, one per warp.
struct AttentionChunks {
  static constexpr Index fewest_keys = 32;  // per chunk
  static constexpr Index most_rows = 8;     // query rows
  Index count;                              // per task; a multiple of a block's warps

  /// As many as fill the device with warps, or as there are keys for.
  AttentionChunks(int processors, Index tasks, Index rows) {
    constexpr Index warps = 4;
    const Index by_keys = ceiling_divide(rows, fewest_keys);
    const Index by_warps = ceiling_divide(Index{processors} * 16, std::max<Index>(tasks, 1));
    count = ceiling_divide(std::clamp<Index>(by_warps, 1, by_keys), warps) * warps;
  }

  /// Upper bound on the chunks of all tasks, for this number of tasks and any smaller one.
  static Index most(int processors, Index tasks) { return Index{processors} * 16 + 8 * tasks; }
  static bool apply(Index length, const AttentionHeads& heads) {
    return length == 1 || length * heads.group() <= most_rows;
  }
};

/// The result of a chunk for a row of queries: o_c, [d], then m_c and l_c.
template <class C, int d>
inline constexpr Index attention_part = d + 2;

/// One warp: a chunk of the keys, for up to Rows query rows from `first_query` on.
template <class C, int d, int Rows>
__global__ void __launch_bounds__(128) attention_chunk_kernel(const __grid_constant__ CausalAttention<C, d> attention,
                                                              Index chunks, Index first_query, compute_t<C>* parts) {
  using T = compute_t<C>;
  constexpr int columns = AttentionTile<T, d>::columns,
                ahead = Rows == 1 ? 8 : 4;  // keys prefetched
  const int lane = lane_index();
  const Index index = Index{blockIdx.x} * 4 + warp_index();
  const Index task_index = index / chunks, chunk = index - task_index * chunks;
  const Index length = attention.shape.length, sequence = task_index / attention.heads.key_values;
  const AttentionTask<C, d> task(
      attention, {sequence, task_index - sequence * attention.heads.key_values, sequence * length, length});
  const Index group = attention.heads.group(), rows = query_rows(attention);
  const int count = static_cast<int>(min(Index{Rows}, rows - first_query));
  const Index begin = task.seen.first(first_query / group);
  const Index end = task.seen.last((first_query + count - 1) / group);
  const Index span = ceiling_divide(end - begin, chunks);
  const Index first = begin + chunk * span, last = min(end, first + span);
  const auto column_of = [&](int c) { return lane + c * warp_size; };
  T q[Rows][columns], sums[Rows][columns] = {}, largest[Rows], totals[Rows] = {};
#pragma unroll
  for (int r = 0; r < Rows; ++r) {
    largest[r] = -T(INFINITY);
    const Index row = first_query + r;
#pragma unroll
    for (int c = 0; c < columns; ++c) {
      q[r][c] = r < count && column_of(c) < d
                    ? static_cast<T>(attention.q(task.first_row + row / group,
                                                 (task.head * group + row % group) * d + column_of(c))) *
                          score_scale<T>(d)
                    : T(0);
    }
  }
  for (Index at = first; at < last; at += ahead) {
    T keys[ahead][columns], values[ahead][columns];
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
      const bool there = at + i < last;
      const auto key = task.keys.row(there ? at + i : first), value = task.values.row(there ? at + i : first);
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
      const Index step = (first_query + r) / group, from = task.seen.first(step), to = task.seen.last(step);
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
    T* const part = parts + ((task_index * rows + first_query + r) * chunks + chunk) * attention_part<T, d>;
#pragma unroll
    for (int c = 0; c < columns; ++c) {
      if (column_of(c) < d) part[column_of(c)] = sums[r][c];
    }
    if (lane == 0) part[d] = largest[r], part[d + 1] = totals[r];
  }
}

/// One block: combines the chunks of a query row. Each warp takes every fourth chunk, in order.
template <class C, int d>
__global__ void __launch_bounds__(128) attention_combine_kernel(const __grid_constant__ CausalAttention<C, d> attention,
                                                                Index chunks, const compute_t<C>* parts) {
  using T = compute_t<C>;
  constexpr int warps = 4, columns = AttentionTile<T, d>::columns;
  __shared__ T warp_sums[warps][columns * warp_size], warp_totals[warps];
  const int lane = lane_index(), warp = warp_index();
  const Index index = blockIdx.x, rows = query_rows(attention);
  const T* const first = parts + index * chunks * attention_part<T, d>;
  T largest = -T(INFINITY), total = T(0), sums[columns] = {};
  for (Index chunk = lane; chunk < chunks; chunk += warp_size) {
    largest = fmax(largest, first[chunk * attention_part<T, d> + d]);
  }
  largest = warp_largest(largest);
#pragma unroll 8
  for (Index chunk = warp; chunk < chunks; chunk += warps) {
    const T* const part = first + chunk * attention_part<T, d>;
    const T weights = part[d + 1], factor = weights == T(0) ? T(0) : exp(part[d] - largest);  // no keys attended to
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

template <class C, int d, int Rows>
void launch_attention_chunks(Device& device, const CausalAttention<C, d>& attention, Index tasks, Index chunks,
                             compute_t<C>* parts) {
  for (Index first = 0; first < query_rows(attention); first += Rows) {
    attention_chunk_kernel<C, d, Rows>
        <<<static_cast<unsigned>(tasks * chunks / 4), 128, 0, device.stream()>>>(attention, chunks, first, parts);
  }
}

template <class C, int d>
void attend_by_key_chunks(Device& device, const CausalAttention<C, d>& attention, Index tasks) {
  using T = compute_t<C>;
  const Index rows = query_rows(attention);
  const AttentionChunks chunks(device.processors(), tasks, attention.heads.context + attention.shape.length);
  Arena arena = attention.scratch;
  T* const parts = arena.take<T>(tasks * rows * chunks.count * attention_part<T, d>);
  if (rows == 1) {
    launch_attention_chunks<C, d, 1>(device, attention, tasks, chunks.count, parts);
  } else {
    launch_attention_chunks<C, d, 4>(device, attention, tasks, chunks.count, parts);
  }
  attention_combine_kernel<C, d>
      <<<static_cast<unsigned>(tasks * rows), 128, 0, device.stream()>>>(attention, chunks.count, parts);
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
