#pragma once

#include <algorithm>

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cuda/common/sequences.hpp"

/// A packed sequence's entry in the table of a convolution's launch.
namespace moe_mamba::inline v0_2::cuda::detail {

struct ConvolutionSequence {
  Index row, length;
  unsigned block;
  unsigned steps;  // per chunk
  unsigned span;   // chunks that a block, or a warp of pairs, processes in turn
};

/// The number of chunks of `steps` steps of a sequence. An empty sequence has one too, in which its state is saved.
constexpr Index convolution_chunks(Index length, Index steps) {
  return ceiling_divide(std::max<Index>(1, length), steps);
}

/// The same for all sequences of a batch.
constexpr Index convolution_chunks(const Shape& shape, Index steps) {
  if (shape.lengths == nullptr) return shape.batch * convolution_chunks(shape.length, steps);
  Index chunks = 0;
  for (Index b = 0; b < shape.batch; ++b) chunks += convolution_chunks(shape.lengths[b], steps);
  return chunks;
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
