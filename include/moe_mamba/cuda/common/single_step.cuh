#pragma once

#include <algorithm>

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/device.hpp"

/// Shared by the kernels of single steps: one independent thread per channel of a sequence. For few sequences such a
/// step takes as long as its launch and one round trip to memory, so a thread issues all its loads first.
namespace moe_mamba::inline v0_2::cuda::detail {

/// A grid over channels and sequences, without divisions; blocks are smaller if some multiprocessors would otherwise
/// have none.
struct StepGrid {
  static constexpr unsigned most_threads = 128;
  unsigned threads;
  dim3 blocks;

  StepGrid(const Device& device, Index batch, Index channels) {
    const bool few = batch * ceiling_divide<Index>(channels, most_threads) < 2 * device.processors();
    threads = few ? unsigned{warp_size} : most_threads;
    constexpr Index most_rows = 65535;  // the limit of a grid's y dimension
    blocks = dim3(static_cast<unsigned>(ceiling_divide<Index>(channels, threads)),
                  static_cast<unsigned>(std::min(batch, most_rows)),
                  static_cast<unsigned>(ceiling_divide(batch, most_rows)));
  }

  static __device__ __forceinline__ Index channel() { return Index{blockIdx.x} * blockDim.x + threadIdx.x; }
  static __device__ __forceinline__ Index sequence() { return Index{blockIdx.z} * gridDim.y + blockIdx.y; }
};

}  // namespace moe_mamba::inline v0_2::cuda::detail
