#pragma once

#include <cstddef>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/cuda/common/launch.cuh"
#include "moe_mamba/cuda/common/sequences.hpp"
#include "moe_mamba/cuda/device.hpp"

/// Tables of packed sequences in device memory. They are written by a kernel that takes the table as an argument, so
/// that neither recorded nor pending launches refer to host memory; and launches over equally long sequences, which
/// need no table, do not carry 4 KiB of arguments.
namespace moe_mamba::inline v0_2::cuda::detail {

inline constexpr int put_threads = 128;

template <class Sequence>
__global__ void __launch_bounds__(put_threads)
    put_sequences_kernel(const __grid_constant__ SequenceTable<Sequence> table, Sequence* to) {
  await_stream();
  release_stream();
  for (int i = static_cast<int>(threadIdx.x); i < table.count; i += put_threads) to[i] = table.of[i];
}

/// The size of a table in an arena.
template <class Sequence>
inline constexpr std::size_t table_bytes = [] {
  Arena counting;
  counting.take<Sequence>(SequenceTable<Sequence>::most);
  return counting.used();
}();

/// Puts a table into memory from `arena`.
template <class Sequence>
LaunchSequences<Sequence> put_sequences(Device& device, const SequenceTable<Sequence>& table, Arena& arena) {
  Sequence* const to = arena.take<Sequence>(SequenceTable<Sequence>::most);
  launch_dependent(device, put_sequences_kernel<Sequence>, 1, put_threads, 0, table, to);
  return {.count = table.count, .packed = to};
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
