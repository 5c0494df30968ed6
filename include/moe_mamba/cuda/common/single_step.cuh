#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/cuda/common/row_cursor.cuh"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/device.hpp"

/// What the kernels of single steps share: a thread takes a channel of a sequence and needs no other. Of few sequences such
/// a step takes as long as its launch and one way to memory and back, so all that a thread reads is asked for at first.
namespace moe_mamba::cuda::detail {

/// Blocks over channels and sequences, without a division; small ones where there would be none for some multiprocessors.
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

/// Of `Count` neighbours, those that are loaded at once: 16 bytes at most.
template <class V, int Count>
inline constexpr int neighbours_at_once = Count % 8 == 0 && sizeof(V) <= 2   ? 8
                                          : Count % 4 == 0 && sizeof(V) <= 4 ? 4
                                          : Count % 2 == 0                   ? 2
                                                                             : 1;

/// Whether `Count` neighbours can be loaded so, from each row of a matrix.
template <int Count, class V>
bool neighbours_are_aligned(const V* from, Index stride) {
  constexpr std::size_t bytes = neighbours_at_once<V, Count> * sizeof(V);
  return reinterpret_cast<std::uintptr_t>(from) % bytes == 0 &&
         static_cast<std::size_t>(stride) * sizeof(V) % bytes == 0;
}

template <bool Aligned, int Count, class V>
__device__ __forceinline__ void load_neighbours(const V* from, V (&to)[Count]) {
  constexpr int at_once = Aligned ? neighbours_at_once<V, Count> : 1;
#pragma unroll
  for (int i = 0; i < Count; i += at_once) {
    const auto values = *reinterpret_cast<const ScanValues<V, at_once>*>(from + i);
#pragma unroll
    for (int j = 0; j < at_once; ++j) to[i + j] = values.of[j];
  }
}

}  // namespace moe_mamba::cuda::detail
