#pragma once

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/cuda/causal_convolution/sequence.hpp"
#include "moe_mamba/cuda/common/put_sequences.cuh"
#include "moe_mamba/cuda/device.hpp"

namespace moe_mamba::inline v0_2::cuda::detail {

/// A table of packed sequences in chunks of `steps` steps, in the device's scratch memory.
inline LaunchSequences<ConvolutionSequence> put_convolution_chunks(Device& device, const Shape& shape, Index steps) {
  const SequenceTable<ConvolutionSequence> table(shape, [&](ConvolutionSequence& sequence) {
    sequence.steps = static_cast<unsigned>(steps);
    sequence.span = 1;
    return convolution_chunks(sequence.length, steps);
  });
  Arena arena(device.scratch());
  return put_sequences(device, table, arena);
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
