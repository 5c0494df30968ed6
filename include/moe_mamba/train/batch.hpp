#pragma once

#include <concepts>
#include <cstddef>
#include <span>
#include <type_traits>

#include "moe_mamba/core/view.hpp"

namespace moe_mamba::inline v0_2 {

/// Numbers of a batch, borrowed from a variable: like std::span<const T>, but construction from a temporary, which would be
/// destroyed before they are read, does not compile.
template <class T>
class BorrowedSpan : public std::span<const T> {
 public:
  constexpr BorrowedSpan() = default;
  constexpr BorrowedSpan(const T* data, std::size_t size) : std::span<const T>(data, size) {}

  template <class Range>
  requires std::convertible_to<Range&, std::span<const T>>
  constexpr BorrowedSpan(Range& range) : std::span<const T>(range) {}

  template <class Range>
  requires std::convertible_to<const Range&, std::span<const T>>
  constexpr BorrowedSpan(const Range&& range) : std::span<const T>(range) {
    static_assert(std::ranges::enable_borrowed_range<std::remove_cv_t<Range>>,
                  "batches borrow their numbers: give them variables that live as long as they do, not temporaries");
  }
};

/// A batch for training a language model: sequences and, for each of their tokens, the next one. Borrows its memory.
struct TokenBatch {
  BorrowedSpan<Token> inputs;   // (B, L)
  BorrowedSpan<Token> targets;  // (B, L), a token or masked_target
  Shape shape;
  /// Whether each sequence continues the same row of the previous batch, so that running states may be carried over.
  bool continues = false;
};

/// A batch for training a sequence model: input numbers and target outputs.
template <ComputeScalar C>
struct SeriesBatch {
  BorrowedSpan<C> inputs;   // (B, L, Inputs), finite
  BorrowedSpan<C> targets;  // (B, L, Outputs), finite
  Shape shape;
  bool continues = false;  // as above
};

namespace detail {

template <class Batch, class Taken>
struct BatchOfTrainer {
  static_assert(
      std::same_as<Batch, Taken>,
      "a trainer takes a TokenBatch of a LanguageModel and a SeriesBatch<T> of a SequenceModel, where T is float, "
      "or double where parameters are: BatchOfTrainer<what was given, what it takes>");
};

}  // namespace detail

}  // namespace moe_mamba::inline v0_2

template <class T>
inline constexpr bool std::ranges::enable_borrowed_range<moe_mamba::BorrowedSpan<T>> = true;
