#pragma once

#include <cstddef>
#include <limits>
#include <span>
#include <type_traits>

#include "moe_mamba/core/annotation.hpp"
#include "moe_mamba/core/scalar.hpp"

/// Views: pointers with a shape. They own nothing and check nothing.
namespace moe_mamba::inline v0_2 {

/// A batch of sequences. Activations of a batch are matrices of tokens() rows, the rows of one sequence after those of the
/// one before it. Sequences are equally long or, with lengths, packed end to end without anything between them.
struct Shape {
  Index batch = 0;
  Index length = 0;                ///< of each sequence; of the longest where lengths are given
  const Index* lengths = nullptr;  ///< (batch) in the host's memory, or null where all are of `length`
  Index total = 0;                 ///< the sum of the lengths where they are given

  /// Sequences of these lengths, which are borrowed: they must stay until the call is over, those of a recorded forward()
  /// until backward() is.
  static constexpr Shape packed(std::span<const Index> lengths) {
    Shape shape{static_cast<Index>(lengths.size()), 0, lengths.data(), 0};
    for (const Index length : lengths) {
      shape.length = length > shape.length ? length : shape.length;
      // What is too much or too little for any batch is refused where the batch is; here it must only not overflow.
      constexpr Index most = std::numeric_limits<Index>::max();
      if (length > 0) shape.total = length > most - shape.total ? most : shape.total + length;
    }
    return shape;
  }
  /// Of a temporary, whose lengths would be gone before they are read.
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

/// A row-major matrix whose rows lie `stride` elements apart; columns are contiguous.
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

  /// `count` rows from row `first` on.
  MOE_MAMBA_HOST_DEVICE constexpr MatrixView row_block(Index first, Index count) const {
    return {row(first), count, columns, stride};
  }
  /// `count` columns from column `first` on.
  MOE_MAMBA_HOST_DEVICE constexpr MatrixView column_block(Index first, Index count) const {
    return {data + first, rows, count, stride};
  }

  // A template, because nvcc warns of a conversion to the type itself that its constraint leaves out.
  template <class To>
  requires(std::is_same_v<To, const T> && !std::is_const_v<T>) MOE_MAMBA_HOST_DEVICE constexpr operator MatrixView<To>()
      const {
    return {data, rows, columns, stride};
  }
};

/// Sequences of a batch that are equally long and lie next to each other: what an operation over sequences is given.
struct SequenceRun {
  Shape shape;
  Index sequence = 0;  ///< the first of them
  Index row = 0;       ///< where its rows begin

  /// Its rows of a matrix of the batch.
  template <class T>
  constexpr MatrixView<T> rows(MatrixView<T> matrix) const {
    return matrix.row_block(row, shape.tokens());
  }
};

/// Calls call(SequenceRun) for the whole of a batch where its sequences are equally long, and for one after the other
/// where they are not.
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

/// For operations whose kernels take equally long sequences, and whose arguments have slice(SequenceRun): where those of
/// `arguments.shape` are packed, calls call(slice) for one after the other and returns true, otherwise false.
template <class Arguments, class Call>
constexpr bool each_packed_run(const Arguments& arguments, const Call& call) {
  if (arguments.shape.lengths == nullptr) return false;
  for_sequence_runs(arguments.shape, [&](const SequenceRun& run) { call(arguments.slice(run)); });
  return true;
}

/// The most that scratch(shape) says for the runs of a packed batch, which operations go through one after the other.
template <class Scratch>
constexpr std::size_t largest_run_scratch(const Shape& shape, const Scratch& scratch) {
  std::size_t most = 0;
  for_sequence_runs(shape, [&](const SequenceRun& run) {
    const std::size_t bytes = scratch(run.shape);
    most = bytes > most ? bytes : most;
  });
  return most;
}

/// A matrix that a function only reads. The scalar is not deduced from it but from the function's output, so that a
/// view of mutable elements fits as well.
template <class T>
using Input = std::type_identity_t<MatrixView<const T>>;

/// A contiguous matrix.
template <class T>
constexpr MatrixView<T> matrix(T* data, Index rows, Index columns) {
  return {data, rows, columns, columns};
}

/// Matrices that lie one below the other in memory, as one.
template <class T, class... Below>
constexpr MatrixView<T> stacked(MatrixView<T> first, Below... below) {
  return {first.data, (first.rows + ... + below.rows), first.columns, first.stride};
}

/// Running states of the sequences of a batch: those of sequence b begin at data + b * stride. Null data stands for
/// states that are all zero when read and are dropped when written.
template <class T>
struct StateView {
  T* data = nullptr;
  Index stride = 0;

  MOE_MAMBA_HOST_DEVICE constexpr explicit operator bool() const { return data != nullptr; }
  MOE_MAMBA_HOST_DEVICE constexpr T* sequence(Index index) const { return data + index * stride; }
  /// Those from sequence `index` on; null stays null.
  constexpr StateView from(Index index) const { return {data == nullptr ? nullptr : sequence(index), stride}; }
  /// The states that lie `offset` elements further on in each sequence; null stays null.
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
