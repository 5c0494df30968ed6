#pragma once

#include <span>

#include "moe_mamba/core/view.hpp"

namespace moe_mamba {

/// What a language model trains on in one step: sequences, and for each of their tokens the one that comes next.
/// Borrowed: the memory belongs to whoever made it.
struct TokenBatch {
  std::span<const Token> inputs;   // (B, L)
  std::span<const Token> targets;  // (B, L), a token or masked_target
  Shape shape;
  /// Each sequence goes on where the same row of the batch before it ended: running states may be carried over.
  bool continues = false;
};

/// What a sequence model trains on in one step: numbers that go in, and those that should come out.
template <ComputeScalar C>
struct SeriesBatch {
  std::span<const C> inputs;   // (B, L, Inputs)
  std::span<const C> targets;  // (B, L, Outputs)
  Shape shape;
  bool continues = false;  // as above
};

}  // namespace moe_mamba
