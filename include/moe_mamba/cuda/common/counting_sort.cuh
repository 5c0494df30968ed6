#pragma once

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cuda/common/launch.cuh"
#include "moe_mamba/cuda/common/reduce.cuh"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/device.hpp"

/// A stable counting sort: items are divided into chunks, one per warp; a prefix sum over the chunks of the counts of
/// each key gives the positions of a chunk's items. Items with equal keys keep their order, whatever the scheduling.
namespace moe_mamba::inline v0_2::cuda::detail {

/// Calls each(item, key, position) for items first … last - 1, where positions count up from next[key] for each key;
/// advances `next` past them. All threads of a warp must call it.
template <class Key, class Each>
__device__ inline void walk_keys(Index first, Index last, const Key& key, Index* next, const Each& each) {
  const int lane = lane_index();
  for (Index start = first; start < last; start += warp_size) {
    const Index item = start + lane;
    const bool present = item < last;
    const Index k = present ? key(item) : Index{-1};
    const unsigned mates = __match_any_sync(full_mask, k);
    const int rank = __popc(mates & ((1u << lane) - 1));
    const Index base = present ? next[k] : Index{0};
    __syncwarp();
    if (present && rank == 0) next[k] = base + __popc(mates);
    __syncwarp();
    if (present) each(item, k, base + rank);
  }
}

inline constexpr int sort_threads = 128;

/// Counts the items of each chunk and key, or calls `place` with each item's position. positions: (chunks, keys).
template <bool counting, class Key, class Place>
__global__ void __launch_bounds__(sort_threads)
    walk_chunks_kernel(Index count, Index chunk_length, Index keys, Key key, Place place, Index* positions) {
  await_stream();
  release_stream();
  const Index chunk = (Index(blockIdx.x) * sort_threads + threadIdx.x) / warp_size;
  const Index first = chunk * chunk_length, last = min(first + chunk_length, count);
  walk_keys(first, last, key, positions + chunk * keys, [&](Index item, Index k, Index position) {
    if constexpr (!counting) place(item, k, position);
  });
}

/// Turns the chunks' counts into positions within their key (an exclusive prefix sum), and returns the total of each
/// key. One warp per key.
template <int threads>
__global__ void __launch_bounds__(threads)
    sum_chunks_kernel(Index chunks, Index keys, Index* positions, Index* totals) {
  await_stream();
  release_stream();
  const Index key = (Index(blockIdx.x) * threads + threadIdx.x) / warp_size;
  const int lane = lane_index();
  if (key >= keys) return;
  Index before = 0;
  for (Index start = 0; start < chunks; start += warp_size) {
    Index* const at = positions + (start + lane) * keys + key;
    const Index own = start + lane < chunks ? *at : Index{0};
    Index sum = own;
    for (int distance = 1; distance < warp_size; distance *= 2) {
      const Index left = __shfl_up_sync(full_mask, sum, distance);
      if (lane >= distance) sum += left;
    }
    if (start + lane < chunks) *at = before + sum - own;
    before += __shfl_sync(full_mask, sum, warp_size - 1);
  }
  if (lane == 0) totals[key] = before;
}

/// offsets[k] = Σ_{j < k} min(totals[j], capacity); *dropped = the number of items beyond the capacity.
template <int threads>
__global__ void __launch_bounds__(threads)
    offsets_kernel(Index keys, Index capacity, const Index* totals, Index* offsets, double* dropped) {
  await_stream();
  release_stream();
  constexpr int warps = threads / warp_size;
  __shared__ Index warp_sums[warps];
  const int lane = lane_index(), warp = warp_index();
  Index before = 0, beyond = 0;
  for (Index start = 0; start < keys; start += threads) {
    const Index key = start + threadIdx.x;
    const Index total = key < keys ? totals[key] : Index{0}, own = min(total, capacity);
    beyond += total - own;
    Index sum = own;
    for (int distance = 1; distance < warp_size; distance *= 2) {
      const Index left = __shfl_up_sync(full_mask, sum, distance);
      if (lane >= distance) sum += left;
    }
    if (lane == warp_size - 1) warp_sums[warp] = sum;
    __syncthreads();
    Index earlier = before;
    for (int w = 0; w < warps; ++w) {
      if (w < warp) earlier += warp_sums[w];
      before += warp_sums[w];
    }
    if (key < keys) offsets[key] = earlier + sum - own;
    __syncthreads();
  }
  beyond = block_sum<threads>(beyond);
  if (threadIdx.x != 0) return;
  offsets[keys] = before;
  if (dropped != nullptr) *dropped = double(beyond);
}

/// Sorts items 0 … count - 1 by key(item) in 0 … keys - 1: place(item, key, position) for each, with its position among
/// the items of its key. Before that, offsets (keys + 1) and dropped (or null) are written, as offsets_kernel says.
/// Uses the rest of the scratch memory after `arena`.
template <class Key, class Place>
void counting_sort(Device& device, Index count, Index keys, Index capacity, const Key& key, const Place& place,
                   Index* offsets, double* dropped, Arena arena) {
  constexpr int warps = sort_threads / warp_size, scan_threads = 1024;
  Index* const totals = arena.take<Index>(keys);
  const Index key_bytes = Index(sizeof(Index)) * keys;
  const Index room = (Index(Device::scratch_bytes) - Index(arena.used())) / key_bytes / warps * warps;
  require(room >= warps, "keys", keys, "as many as fit in the device's scratch memory (at least 2^20)");
  const Index most = std::min<Index>(room, 4096);
  const Index length = std::max<Index>(256, ceiling_divide(ceiling_divide(count, most), Index{warp_size}) * warp_size);
  const Index chunks = std::max<Index>(1, ceiling_divide(ceiling_divide(count, length), Index{warps})) * warps;
  Index* const positions = arena.take<Index>(chunks * keys);

  check(cudaMemsetAsync(positions, 0, std::size_t(chunks * key_bytes), device.stream()), "cudaMemsetAsync");
  const auto walk_blocks = unsigned(chunks / warps);
  launch_dependent(device, walk_chunks_kernel<true, Key, Place>, walk_blocks, sort_threads, 0, count, length, keys, key,
                   place, positions);
  launch_dependent(device, sum_chunks_kernel<sort_threads>, unsigned(ceiling_divide<Index>(keys, warps)), sort_threads,
                   0, chunks, keys, positions, totals);
  launch_dependent(device, offsets_kernel<scan_threads>, 1, scan_threads, 0, keys, capacity, totals, offsets, dropped);
  launch_dependent(device, walk_chunks_kernel<false, Key, Place>, walk_blocks, sort_threads, 0, count, length, keys,
                   key, place, positions);
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
