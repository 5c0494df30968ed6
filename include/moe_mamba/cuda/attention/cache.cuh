#pragma once

#include <algorithm>

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cuda/attention/rows.cuh"
#include "moe_mamba/cuda/device.hpp"

/// The running state of attention: saved before a call, extended after it.
namespace moe_mamba::inline v0_2::cuda::detail {

/// Saves the state before the call: the slots of a sequence are divided among `blocks` blocks.
template <class C, int d>
__global__ void __launch_bounds__(256)
    attention_save_kernel(const __grid_constant__ CausalAttention<C, d> attention, Index blocks) {
  using T = compute_t<C>;
  const AttentionCache<d> cache(attention.heads);
  const Index sequence = blockIdx.x / blocks, block = blockIdx.x % blocks;
  const T* const state = attention.state.data == nullptr ? nullptr : attention.state.sequence(sequence);
  const Index position = state == nullptr ? 0 : read_position(state + cache.position());
  T* const saved = attention.saved_state + sequence * cache.size();
  // Until the ring buffer is full, it is read from slot 0 on.
  const Index used = min(position, attention.heads.context) * d, head_size = attention.heads.context * d;
  for (Index i = block * 256 + threadIdx.x; i < 2 * attention.heads.key_values * used; i += blocks * 256) {
    const Index at = i / used * head_size + i % used;
    saved[at] = state[at];
  }
  if (block == 0 && threadIdx.x == 0) write_position(position, saved + cache.position());
}

/// Stores the call's last rows in the cache, divided among `blocks` blocks of each sequence. A single block also
/// advances the position.
template <class C, int d>
__global__ void __launch_bounds__(256)
    attention_store_kernel(const __grid_constant__ CausalAttention<C, d> attention,
                           const __grid_constant__ LaunchSequences<AttentionSequence> sequences, Index blocks) {
  using T = compute_t<C>;
  const AttentionCache<d> cache(attention.heads);
  const Index sequence = blockIdx.x / blocks, block = blockIdx.x % blocks;
  const Index first_row = sequences.row_of<SequenceKind::either>(sequence),
              length = sequences.length_of<SequenceKind::either>(sequence);
  if (length == 0) return;
  T* const state = attention.state.sequence(sequence);
  const SeenRows seen(read_position(state + cache.position()), attention.heads.context);
  const Index columns = attention.heads.key_values * d, kept = min(length, attention.heads.context);
  __syncthreads();
  for (Index i = block * 256 + threadIdx.x; i < kept * columns; i += blocks * 256) {
    const Index t = length - kept + i / columns, column = i % columns, head = column / d;
    const Index offset = seen.slot(seen.cached + t) * d + column % d;
    state[cache.keys(head) + offset] = static_cast<T>(attention.k(first_row + t, column));
    state[cache.values(head) + offset] = static_cast<T>(attention.v(first_row + t, column));
  }
  if (blocks == 1 && threadIdx.x == 0) write_position(seen.position + length, state + cache.position());
}

template <class C, int d>
__global__ void __launch_bounds__(128)
    attention_advance_position_kernel(const __grid_constant__ CausalAttention<C, d> attention,
                                      const __grid_constant__ LaunchSequences<AttentionSequence> sequences) {
  using T = compute_t<C>;
  const Index sequence = Index{blockIdx.x} * 128 + threadIdx.x;
  if (sequence >= attention.shape.batch) return;
  const Index length = sequences.length_of<SequenceKind::either>(sequence);
  if (length == 0) return;
  T* const position = attention.state.sequence(sequence) + AttentionCache<d>(attention.heads).position();
  write_position(read_position(position) + length, position);
}

/// The number of blocks of 256 threads among which the `elements` elements of each of `batch` sequences are divided.
inline Index copying_blocks(const Device& device, Index batch, Index elements) {
  const Index enough = ceiling_divide(Index{device.processors()} * 8, batch);
  return std::clamp<Index>(ceiling_divide(elements, 256), 1, enough);
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
