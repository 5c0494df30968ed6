#pragma once

#include <cstddef>
#include <limits>
#include <span>
#include <type_traits>

#include "moe_mamba/core/annotation.hpp"
#include "moe_mamba/core/scalar.hpp"

/// Views: pointers with a shape. They own nothing and check nothing.
namespace moe_mamba::inline v0_2 {

/// The shape of a batch of sequences. Activations of a batch are matrices of tokens() rows, sequence by sequence. Sequences are
/// equally long or, with lengths, packed end to end without padding.
struct Shape {
  Index batch = 0;
  Index length = 0;                ///< of each sequence; of the longest if lengths are given
  const Index* lengths = nullptr;  ///< (batch) in the host's memory, or null if all have `length`
  Index total = 0;                 ///< the sum of the lengths if they are given

  /// Sequences of these lengths, which are borrowed: they must stay valid until the call has returned, for a recorded
  /// forward() until backward() has.
  static constexpr Shape packed(std::span<const Index> lengths) {
    Shape shape{static_cast<Index>(lengths.size()), 0, lengths.data(), 0};
    for (const Index length : lengths) {
      shape.length = length > shape.length ? length : shape.length;
      // Lengths that no batch may have are refused when the batch is used; here they must only not overflow.
      constexpr Index most = std::numeric_limits<Index>::max();
      if (length > 0) shape.total = length > most - shape.total ? most : shape.total + length;
    }
    return shape;
  }
  /// Deleted: a temporary would be destroyed before its lengths are read.
  template <class Range>
  requires(!std::is_lvalue_reference_v<Range> &&
           std::is_convertible_v<Range, std::span<const Index>>) static constexpr Shape packed(Range&& lengths) {
    static_assert(std::ranges::enable_borrowed_range<std::remove_cv_t<Range>>,
                  "Shape::packed() borrows the lengths: give it a variable that lives as long as the shape, not a "
                  "temporary");
    return packed(std::span<const Index>(lengths));
  }

  MOE_MAMBA_HOST_DEVICE constexpr Index tokens() const { return lengths == nullptr ? batch * length : total; }
  constexpr Index length_of(Index sequence) const { return lengths == nullptr ? length : lengths[sequence]; }
  friend constexpr bool operator==(Shape, Shape) = default;
};

/// A row-major matrix whose rows are `stride` elements apart; the elements of a row are contiguous.
template <class T>
struct MatrixView {
  T* data = nullptr;
  Index rows = 0;
  Index columns = 0;
  Index stride = 0;

  MOE_MAMBA_HOST_DEVICE constexpr T* row(Index index) const { return data + index * stride; }
  MOE_MAMBA_HOST_DEVICE constexpr T& operator()(Index row_index, Index column) const {
    return data[row_index * stride + column];
  }

  /// `count` rows, starting at row `first`.
  MOE_MAMBA_HOST_DEVICE constexpr MatrixView row_block(Index first, Index count) const {
    return {row(first), count, columns, stride};
  }
  /// `count` columns, starting at column `first`.
  MOE_MAMBA_HOST_DEVICE constexpr MatrixView column_block(Index first, Index count) const {
    return {data + first, rows, count, stride};
  }

  // A template, because nvcc warns of a conversion to the same type even if its constraint excludes it.
  template <class To>
  requires(std::is_same_v<To, const T> && !std::is_const_v<T>) MOE_MAMBA_HOST_DEVICE constexpr operator MatrixView<To>()
      const {
    return {data, rows, columns, stride};
  }
};

/// Adjacent sequences of a batch that are equally long, as operations on sequences take them.
struct SequenceRun {
  Shape shape;
  Index sequence = 0;  ///< the first of them
  Index row = 0;       ///< the first of their rows

  /// The rows of these sequences in a matrix of the batch.
  template <class T>
  constexpr MatrixView<T> rows(MatrixView<T> matrix) const {
    return matrix.row_block(row, shape.tokens());
  }
};

/// Calls call(SequenceRun) once for a batch of equally long sequences, otherwise for each sequence.
template <class Call>
constexpr void for_sequence_runs(const Shape& shape, const Call& call) {
  if (shape.lengths == nullptr) {
    call(SequenceRun{shape});
    return;
  }
  Index row = 0;
  for (Index sequence = 0; sequence < shape.batch; ++sequence) {
    call(SequenceRun{{1, shape.lengths[sequence]}, sequence, row});
    row += shape.lengths[sequence];
  }
}

/// For operations whose kernels take equally long sequences, and whose arguments have slice(SequenceRun): if the sequences of
/// `arguments.shape` are packed, calls call(slice) for each of them and returns true, otherwise returns false.
template <class Arguments, class Call>
constexpr bool each_packed_run(const Arguments& arguments, const Call& call) {
  if (arguments.shape.lengths == nullptr) return false;
  for_sequence_runs(arguments.shape, [&](const SequenceRun& run) { call(arguments.slice(run)); });
  return true;
}

/// The maximum of scratch(shape) over the runs of a packed batch, which operations process one by one.
template <class Scratch>
constexpr std::size_t largest_run_scratch(const Shape& shape, const Scratch& scratch) {
  std::size_t most = 0;
  for_sequence_runs(shape, [&](const SequenceRun& run) {
    const std::size_t bytes = scratch(run.shape);
    most = bytes > most ? bytes : most;
  });
  return most;
}

/// A matrix that a function only reads. The scalar type is not deduced from it but from the function's output, so that a view of
/// mutable elements is accepted too.
template <class T>
using Input = std::type_identity_t<MatrixView<const T>>;

/// A contiguous matrix.
template <class T>
constexpr MatrixView<T> matrix(T* data, Index rows, Index columns) {
  return {data, rows, columns, columns};
}

/// A stack of matrices that are contiguous in memory.
template <class T, class... Below>
constexpr MatrixView<T> stacked(MatrixView<T> first, Below... below) {
  return {first.data, (first.rows + ... + below.rows), first.columns, first.stride};
}

/// Running states of the sequences of a batch: those of sequence b begin at data + b * stride. Null data represents states that
/// are zero when read and dropped when written.
template <class T>
struct StateView {
  T* data = nullptr;
  Index stride = 0;

  MOE_MAMBA_HOST_DEVICE constexpr explicit operator bool() const { return data != nullptr; }
  MOE_MAMBA_HOST_DEVICE constexpr T* sequence(Index index) const { return data + index * stride; }
  /// The states of the sequences starting at `index`; null stays null.
  constexpr StateView from(Index index) const { return {data == nullptr ? nullptr : sequence(index), stride}; }
  /// The states at `offset` elements in each sequence; null stays null.
  MOE_MAMBA_HOST_DEVICE constexpr StateView at(Index offset) const {
    return {data == nullptr ? nullptr : data + offset, stride};
  }

  template <class To>
  requires(std::is_same_v<To, const T> && !std::is_const_v<T>) MOE_MAMBA_HOST_DEVICE constexpr operator StateView<To>()
      const {
    return {data, stride};
  }
};

}  // namespace moe_mamba::inline v0_2
