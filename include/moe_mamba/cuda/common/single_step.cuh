#pragma once

#include <algorithm>

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/device.hpp"

/// What the kernels of single steps share: a thread takes a channel of a sequence and needs no other. Of few sequences
/// such a step takes as long as its launch and one round trip to memory, so a thread loads all that it reads at first.
namespace moe_mamba::inline v0_2::cuda::detail {

/// Blocks over channels and sequences, without a division; small ones where there would be none for some
/// multiprocessors.
struct StepGrid {
  static constexpr unsigned most_threads = 128;
  unsigned threads;
  dim3 blocks;

  StepGrid(const Device& device, Index batch, Index channels) {
    const bool few = batch * ceiling_divide<Index>(channels, most_threads) < 2 * device.processors();
    threads = few ? unsigned{warp_size} : most_threads;
    constexpr Index most_rows = 65535;  // of a grid
    blocks = dim3(static_cast<unsigned>(ceiling_divide<Index>(channels, threads)),
                  static_cast<unsigned>(std::min(batch, most_rows)),
                  static_cast<unsigned>(ceiling_divide(batch, most_rows)));
  }

  static __device__ __forceinline__ Index channel() { return Index{blockIdx.x} * blockDim.x + threadIdx.x; }
  static __device__ __forceinline__ Index sequence() { return Index{blockIdx.z} * gridDim.y + blockIdx.y; }
};

}  // namespace moe_mamba::inline v0_2::cuda::detail
