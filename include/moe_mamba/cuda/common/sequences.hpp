#pragma once

#include <cstddef>
#include <span>
#include <type_traits>

#include "moe_mamba/core/view.hpp"

/// How one launch covers all sequences of a batch. Its blocks are numbered sequence by sequence. A block finds its
/// sequence by a division if sequences are equally long, and by binary search in a table if they are packed.
namespace moe_mamba::inline v0_2::cuda::detail {

/// A sequence of a packed launch: the first of its rows and blocks among those of the launch. Operations with their own
/// division of sequences derive entries with further members.
struct PackedSequence {
  Index row, length;
  unsigned block;
};

/// The entries of a table, as a kernel argument: as many as fit in 4 KiB.
template <class Sequence>
struct SequenceTable {
  static constexpr int most = 4000 / static_cast<int>(sizeof(Sequence));
  Sequence of[std::size_t{most}];
  int count = 0;
  unsigned blocks = 0;  // in total

  /// `shape` has at most `most` packed sequences. cut(sequence) is given an entry with row and length, completes it
  /// except for the block, and returns the sequence's number of blocks, which may be 0.
  template <class Cut>
  SequenceTable(const Shape& shape, const Cut& cut) {
    Index row = 0;
    for (; count < shape.batch; ++count) {
      Sequence& sequence = of[count];
      sequence.row = row;
      sequence.length = shape.lengths[count];
      sequence.block = blocks;
      blocks += static_cast<unsigned>(cut(sequence));
      row += sequence.length;
    }
  }
};

/// The index of a block's sequence: the last one whose first block is not after it. Sequences without blocks are
/// skipped, as the next one begins with the same block.
template <class Sequence>
MOE_MAMBA_HOST_DEVICE constexpr int sequence_of_block(const Sequence* sequences, int count, unsigned block) {
  int first = 0;
  while (count > 1) {
    const int half = count / 2;
    if (sequences[first + half].block <= block) {
      first += half;
      count -= half;
    } else {
      count = half;
    }
  }
  return first;
}

/// A block's sequence, and its index among the blocks of that sequence.
struct SequenceBlock {
  Index sequence, row, length;
  unsigned block;
};

/// What a kernel is instantiated for: one kind if a test at run time would cost registers, otherwise either.
enum class SequenceKind { equal, packed, either };

/// The sequences of a launch, as passed to kernels.
template <class Sequence>
struct LaunchSequences {
  Index length = 0;                  // of each sequence, if equally long
  unsigned blocks = 1;               // per sequence, likewise
  int count = 0;                     // the number of packed sequences
  const Sequence* packed = nullptr;  // (count) in device memory; null if equally long

  template <SequenceKind kind>
  MOE_MAMBA_HOST_DEVICE constexpr bool is_packed() const {
    return kind == SequenceKind::either ? packed != nullptr : kind == SequenceKind::packed;
  }
  template <SequenceKind kind>
  MOE_MAMBA_HOST_DEVICE constexpr SequenceBlock at(unsigned block) const {
    if (is_packed<kind>()) {
      const int sequence = sequence_of_block(packed, count, block);
      const Sequence& entry = packed[sequence];
      return {sequence, entry.row, entry.length, block - entry.block};
    }
    const unsigned sequence = block / blocks;
    return {sequence, sequence * length, length, block - sequence * blocks};
  }
  template <SequenceKind kind>
  MOE_MAMBA_HOST_DEVICE constexpr Index row_of(Index sequence) const {
    return is_packed<kind>() ? packed[sequence].row : sequence * length;
  }
  template <SequenceKind kind>
  MOE_MAMBA_HOST_DEVICE constexpr Index length_of(Index sequence) const {
    return is_packed<kind>() ? packed[sequence].length : length;
  }

  /// Calls launch(kind), a constant.
  template <class Launch>
  void with_kind(const Launch& launch) const {
    if (packed == nullptr) {
      launch(std::integral_constant<SequenceKind, SequenceKind::equal>{});
    } else {
      launch(std::integral_constant<SequenceKind, SequenceKind::packed>{});
    }
  }

  /// Calls call(begin, end) with the range of blocks of each packed sequence that has any, or once with the range of
  /// all equally long ones; `total` is the number of blocks of all sequences.
  template <class Call>
  MOE_MAMBA_HOST_DEVICE constexpr void each_run_of_blocks(Index total, const Call& call) const {
    Index begin = 0;
    for (int next = 1; next < count; ++next) {
      const Index end = packed[next].block;
      if (begin < end) call(begin, end);
      begin = end;
    }
    if (begin < total) call(begin, total);
  }
};

/// Calls call(SequenceRun) for each launch: once for a whole batch of equally long sequences; for a packed batch with
/// groups of consecutive sequences, each as large as possible with at most `most` sequences and fits(load) true for the
/// sum of their load_of(length), but at least one sequence. A group of one is passed as equally long sequences, which
/// need no table.
template <class LoadOf, class Fits, class Call>
constexpr void for_sequence_groups(const Shape& shape, Index most, const LoadOf& load_of, const Fits& fits,
                                   const Call& call) {
  if (shape.lengths == nullptr) {
    call(SequenceRun{shape});
    return;
  }
  for (Index first = 0, row = 0; first < shape.batch;) {
    auto load = load_of(shape.lengths[first]);
    Index count = 1;
    for (; count < most && first + count < shape.batch; ++count) {
      const auto with_next = load + load_of(shape.lengths[first + count]);
      if (!fits(with_next)) break;
      load = with_next;
    }
    const Shape part = count == 1 ? Shape{1, shape.lengths[first]}
                                  : Shape::packed(std::span(shape.lengths + first, static_cast<std::size_t>(count)));
    call(SequenceRun{part, first, row});
    first += count;
    row += part.tokens();
  }
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
