#pragma once

#include <cstddef>
#include <span>
#include <type_traits>

#include "moe_mamba/core/view.hpp"

/// How one launch takes all sequences of a batch. Its blocks are numbered sequence after sequence. Where sequences are
/// equally long, a block finds its own by a division; where they are packed, in a table of them, by bisection.
namespace moe_mamba::inline v0_2::cuda::detail {

/// A sequence of a packed launch: where its rows and blocks begin, among those of the launch. Operations that cut
/// sequences in ways of their own have entries with further members.
struct PackedSequence {
  Index row, length;
  unsigned block;
};

/// Entries of a table on its way to the device: as many as the 4 KiB of a kernel's arguments hold.
template <class Sequence>
struct SequenceTable {
  static constexpr int most = 4000 / static_cast<int>(sizeof(Sequence));
  Sequence of[std::size_t{most}];
  int count = 0;
  unsigned blocks = 0;  // of all sequences

  /// `shape` has packed sequences, `most` at most. cut(sequence) is given an entry with its row and length, completes it
  /// but for the block, and returns how many blocks the sequence takes, which may be none.
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

/// The number of the sequence that a block is of: the last that begins with it or before it. Sequences without blocks are
/// passed over, as the next begins with the same block.
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

/// A block's sequence, and its number among the blocks of that.
struct SequenceBlock {
  Index sequence, row, length;
  unsigned block;
};

/// What a kernel is instantiated for: one kind where asking at run time costs registers, else either.
enum class SequenceKind { equal, packed, either };

/// The sequences of a launch, as kernels are given them.
template <class Sequence>
struct LaunchSequences {
  Index length = 0;                  // of each, where they are equally long
  unsigned blocks = 1;               // of each, likewise
  int count = 0;                     // of packed ones
  const Sequence* packed = nullptr;  // (count) in device memory; null where they are equally long

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

  /// Calls call(begin, end) for the blocks of one packed sequence after the other, but for those that have none, or once
  /// for those of all equally long ones; `total` of all sequences.
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

/// Calls call(SequenceRun) for what one launch takes: the whole of a batch of equally long sequences; of a packed one,
/// neighbours with one after the other until there are `most` or fits(load) is false for the sum of their
/// load_of(length), but one at least. One alone comes as a batch of equally long sequences, which needs no table.
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
