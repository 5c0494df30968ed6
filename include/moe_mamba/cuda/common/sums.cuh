#pragma once

#include <algorithm>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cuda/common/elements.cuh"
#include "moe_mamba/cuda/common/launch.cuh"
#include "moe_mamba/cuda/common/reduce.cuh"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/device.hpp"

/// Sums over the elements of a matrix, or over its rows for each column, in chunks that depend on sizes alone, so
/// results are bitwise reproducible.
///
/// The operation on an element is a type with a `__device__` call operator, passed to the kernel by value.
namespace moe_mamba::inline v0_2::cuda::detail {

/// The most partial sums of one number: as many as one block can add up.
inline constexpr Index most_partial_sums = 1024;

template <class Each>
__global__ void __launch_bounds__(ElementGrid::threads)
    partial_sum_kernel(Index rows, Index columns, Each each, double* partial) {
  double sum = 0;
  walk_elements(rows, columns, [&](Index row, Index column) { sum += each(row, column); });
  sum = block_sum<ElementGrid::threads>(sum);
  if (threadIdx.x == 0 && threadIdx.y == 0) partial[Index(blockIdx.y) * gridDim.x + blockIdx.x] = sum;
}

template <class T>
__global__ void __launch_bounds__(ElementGrid::threads) total_kernel(const T* partial, Index count, T* total) {
  T sum = 0;
  for (Index i = threadIdx.x; i < count; i += blockDim.x) sum += partial[i];
  sum = block_sum<ElementGrid::threads>(sum);
  if (threadIdx.x == 0) *total = sum;
}

/// *total = the sum of each(row, column), a double, over all elements.
template <class Each>
void sum_elements(Device& device, Index rows, Index columns, bool contiguous, const Each& each, double* total) {
  if (contiguous) {
    columns *= rows;
    rows = std::min<Index>(rows, 1);
  }
  Arena arena(device.scratch());
  double* const partial = arena.take<double>(most_partial_sums);
  Index count = 0;
  if (rows > 0 && columns > 0) {
    ElementGrid grid(rows, columns);
    grid.blocks.y = unsigned(std::min<Index>(grid.blocks.y, most_partial_sums));
    grid.blocks.x = unsigned(std::min<Index>(grid.blocks.x, most_partial_sums / grid.blocks.y));
    count = Index(grid.blocks.x) * grid.blocks.y;
    partial_sum_kernel<<<grid.blocks, grid.block, 0, device.stream()>>>(rows, columns, each, partial);
    check_launch("partial_sum_kernel");
  }
  total_kernel<<<1, ElementGrid::threads, 0, device.stream()>>>(partial, count, total);
  check_launch("total_kernel");
}

/// How rows are divided into chunks, each with its own sums over every column.
struct ColumnSumGrid {
  static constexpr int threads = 256;
  Index rows, rows_per_chunk;
  unsigned across, chunks;  // threads over columns; chunks of rows

  /// `room`: the number of chunks that fit in memory.
  ColumnSumGrid(Index rows_, Index columns, Index room) : rows(rows_), across(1) {
    while (across < unsigned(warp_size) && Index(across) < columns) across *= 2;
    const Index wanted = std::clamp<Index>(room, 1, 256);
    rows_per_chunk = std::max(ceiling_divide(rows, wanted), Index(threads / across) * 4);
    chunks = unsigned(std::max<Index>(1, ceiling_divide(rows, rows_per_chunk)));
  }
};

/// partial[chunk][array][column] = the sum over the chunk's rows of what each(row, column, sums) adds to sums[array].
template <int arrays, class Each>
__global__ void __launch_bounds__(ColumnSumGrid::threads)
    column_sum_kernel(Index rows, Index rows_per_chunk, Index columns, Each each, double* partial) {
  await_stream();
  release_stream();
  __shared__ double shared[arrays][ColumnSumGrid::threads];
  const int thread = int(threadIdx.y * blockDim.x + threadIdx.x);
  const Index column = Index(blockIdx.x) * blockDim.x + threadIdx.x;
  const Index first = Index(blockIdx.y) * rows_per_chunk, last = min(first + rows_per_chunk, rows);
  double sums[arrays] = {};
  if (column < columns) {
    for (Index row = first + threadIdx.y; row < last; row += blockDim.y) each(row, column, sums);
  }
  for (int array = 0; array < arrays; ++array) shared[array][thread] = sums[array];
  __syncthreads();
  if (threadIdx.y != 0 || column >= columns) return;
  for (int array = 0; array < arrays; ++array) {
    double sum = 0;
    for (unsigned y = 0; y < blockDim.y; ++y) sum += shared[array][y * blockDim.x + threadIdx.x];
    partial[(Index(blockIdx.y) * arrays + array) * columns + column] = sum;
  }
}

/// Columns of a block that adds up chunks, and threads per column.
inline constexpr int total_across = 16, total_down = 16;

/// Calls finish(column, sums) for each column, with the sums over all chunks: each of a column's threads adds up every
/// total_down-th chunk, and one of them adds up these.
template <int arrays, class Finish>
__global__ void __launch_bounds__(total_across* total_down)
    column_total_kernel(const double* partial, Index chunks, Index columns, Finish finish) {
  await_stream();
  release_stream();
  __shared__ double shared[arrays][total_down][total_across];
  const Index column = Index(blockIdx.x) * total_across + threadIdx.x;
  double sums[arrays] = {};
  if (column < columns) {
#pragma unroll 4
    for (Index chunk = threadIdx.y; chunk < chunks; chunk += total_down) {
      for (int array = 0; array < arrays; ++array) sums[array] += partial[(chunk * arrays + array) * columns + column];
    }
  }
  for (int array = 0; array < arrays; ++array) shared[array][threadIdx.y][threadIdx.x] = sums[array];
  __syncthreads();
  if (threadIdx.y != 0 || column >= columns) return;
  for (int array = 0; array < arrays; ++array) {
    for (int y = 1; y < total_down; ++y) sums[array] += shared[array][y][threadIdx.x];
  }
  finish(column, sums);
}

/// Calls finish(column, sums) with the sums over `chunks` partial sums, in the layout of column_sum_kernel.
template <int arrays, class Finish>
void total_columns(Device& device, const double* partial, Index chunks, Index columns, const Finish& finish) {
  launch_dependent(device, column_total_kernel<arrays, Finish>, unsigned(ceiling_divide<Index>(columns, total_across)),
                   dim3(total_across, total_down), 0, partial, chunks, columns, finish);
}

/// Sums over rows in double for every column: each(row, column, sums) adds to `arrays` sums, finish(column, sums)
/// receives the totals. Partial sums are in the device's scratch memory after `arena`. Throws std::invalid_argument if
/// that is too small for one chunk.
template <int arrays, class Each, class Finish>
void sum_columns(Device& device, Index rows, Index columns, const Each& each, const Finish& finish, Arena arena) {
  if (columns == 0) return;
  const Index row_bytes = Index(sizeof(double)) * arrays * columns;
  const Index room = Index(Device::scratch_bytes - arena.used()) / row_bytes;
  require(room >= 1, "columns", columns, "as many as fit in the device's scratch memory (at least 2^22)");
  const ColumnSumGrid grid(rows, columns, room);
  double* const partial = arena.take<double>(Index(grid.chunks) * arrays * columns);
  const dim3 blocks(unsigned(ceiling_divide<Index>(columns, grid.across)), grid.chunks);
  const dim3 block(grid.across, unsigned(ColumnSumGrid::threads) / grid.across);
  launch_dependent(device, column_sum_kernel<arrays, Each>, blocks, block, 0, rows, grid.rows_per_chunk, columns, each,
                   partial);
  total_columns<arrays>(device, partial, Index(grid.chunks), columns, finish);
}

/// Adds each array of column sums to an array in memory.
template <class C, int arrays>
struct AddColumnSums {
  C* to[arrays];
  __device__ void operator()(Index column, const double (&sums)[arrays]) const {
    for (int array = 0; array < arrays; ++array) {
      to[array][column] = static_cast<C>(double(to[array][column]) + sums[array]);
    }
  }
};

}  // namespace moe_mamba::inline v0_2::cuda::detail
