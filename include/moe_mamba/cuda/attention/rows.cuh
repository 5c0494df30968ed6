#pragma once

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/cuda/common/put_sequences.cuh"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/ops/attention.hpp"

/// The rows of queries, keys and values of attention's kernels.
namespace moe_mamba::inline v0_2::cuda::detail {

/// A row of activations, read in the compute type.
template <class C>
struct OwnRow {
  const C* own;
  __device__ compute_t<C> operator[](int i) const { return static_cast<compute_t<C>>(own[i]); }
};

/// A row of keys or values: one of the call's own, or one of the cache, which is in the compute type.
template <class C>
struct SeenRow {
  const compute_t<C>* cached;
  const C* own;
  __device__ compute_t<C> operator[](int i) const {
    return cached != nullptr ? cached[i] : static_cast<compute_t<C>>(own[i]);
  }
};

/// The location of the keys or values of one head of one sequence.
template <class C, int HeadWidth>
struct SeenSource {
  SeenRows seen;
  const compute_t<C>* cache;  // [N, d]; null if no cached row is read
  const C* own;               // the row of the call's first step
  Index own_stride;

  __device__ auto row(Index j) const {
    const bool is_cached = j < seen.cached;
    if constexpr (std::is_same_v<C, compute_t<C>>) {
      return OwnRow<C>{is_cached ? cache + seen.slot(j) * HeadWidth : own + (j - seen.cached) * own_stride};
    } else {
      return SeenRow<C>{is_cached ? cache + seen.slot(j) * HeadWidth : nullptr, own + (j - seen.cached) * own_stride};
    }
  }
};

template <class C, int HeadWidth>
__device__ inline SeenSource<C, HeadWidth> seen_source(const SeenRows& seen, const compute_t<C>* state,
                                                       Index cache_offset, const MatrixView<const C>& rows,
                                                       Index first_row, Index head) {
  return {seen, state == nullptr ? nullptr : state + cache_offset, rows.row(first_row) + head * HeadWidth, rows.stride};
}

/// Query rows per sequence and key-value head, if sequences are equally long.
template <class Attention>
__host__ __device__ inline Index query_rows(const Attention& attention) {
  return attention.shape.length * attention.heads.group();
}

/// A block's sequence, key-value head and tile.
struct AttentionPlace {
  Index sequence, head, first_row, length;
  Index tile = 0, tiles = 0;
};

/// An entry of a packed sequence: it has `tiles` blocks per key-value head.
struct AttentionSequence {
  Index row, length;
  unsigned block, tiles;
};

/// The tiles of a launch, numbered sequence after sequence, head after head.
struct AttentionTiles {
  LaunchSequences<AttentionSequence> sequences;
  unsigned tiles = 0;   // per sequence and head, if sequences are equally long
  unsigned blocks = 0;  // in total

  /// tiles_of(length) is the number of tiles per sequence and head. The table of packed sequences is taken from
  /// `arena`.
  template <class TilesOf>
  AttentionTiles(Device& device, const Shape& shape, Index heads, Arena& arena, const TilesOf& tiles_of) {
    const auto count = [&](Index length) { return static_cast<unsigned>(tiles_of(length)); };
    if (shape.lengths == nullptr) {
      tiles = count(shape.length);
      sequences = {.length = shape.length, .blocks = static_cast<unsigned>(tiles * heads)};
      blocks = static_cast<unsigned>(shape.batch * sequences.blocks);
    } else {
      const SequenceTable<AttentionSequence> table(shape, [&](AttentionSequence& sequence) {
        sequence.tiles = count(sequence.length);
        return sequence.tiles * heads;
      });
      sequences = put_sequences(device, table, arena);
      blocks = table.blocks;
    }
  }

  __device__ __forceinline__ AttentionPlace place() const {
    const auto [sequence, row, length, block] = sequences.at<SequenceKind::either>(blockIdx.x);
    const unsigned own = sequences.packed == nullptr ? tiles : sequences.packed[sequence].tiles;
    const unsigned head = block / own;
    return {sequence, head, row, length, block - head * own, own};
  }
};

/// The task of a block or warp: a sequence and key-value head, and the rows that its steps attend to.
template <class C, int d>
struct AttentionTask : AttentionPlace {
  const compute_t<C>* state;
  SeenRows seen;
  SeenSource<C, d> keys, values;

  __device__ AttentionTask(const CausalAttention<C, d>& attention, const AttentionPlace& place)
      : AttentionPlace(place),
        state(attention.state.data == nullptr ? nullptr : attention.state.sequence(sequence)),
        seen(state == nullptr ? 0 : read_position(state + AttentionCache<d>(attention.heads).position()),
             attention.heads.context),
        keys(seen_source<C, d>(seen, state, AttentionCache<d>(attention.heads).keys(head), attention.k, first_row,
                               head)),
        values(seen_source<C, d>(seen, state, AttentionCache<d>(attention.heads).values(head), attention.v, first_row,
                                 head)) {}
};

template <class T>
__device__ inline T score_scale(int head_width) {
  return static_cast<T>(1 / sqrt(static_cast<double>(head_width)));
}

/// The same for the backward pass.
template <class C, int d>
struct AttentionBackwardTask : AttentionPlace {
  const compute_t<C>* saved;
  SeenRows seen;
  SeenSource<C, d> keys, values;

  __device__ AttentionBackwardTask(const CausalAttentionBackward<C, d>& attention, const AttentionPlace& place)
      : AttentionPlace(place),
        saved(attention.saved_state + sequence * AttentionCache<d>(attention.heads).size()),
        seen(read_position(saved + AttentionCache<d>(attention.heads).position()), attention.heads.context),
        keys(seen_source<C, d>(seen, saved, AttentionCache<d>(attention.heads).keys(head), attention.k, first_row,
                               head)),
        values(seen_source<C, d>(seen, saved, AttentionCache<d>(attention.heads).values(head), attention.v, first_row,
                                 head)) {}
};

}  // namespace moe_mamba::inline v0_2::cuda::detail
