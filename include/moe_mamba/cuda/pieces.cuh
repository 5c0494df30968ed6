#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/cuda/block/reduce.cuh"
#include "moe_mamba/cuda/dependent_launch.cuh"
#include "moe_mamba/cuda/device.hpp"

/// How the operations that read their operands once are spread over the device: a thread for each element, or pieces
/// with partial sums, cut by sizes alone, so that sums are the same from run to run.
///
/// What is done with an element is a type with a `__device__` call operator, held by value in the kernel's arguments.
namespace moe_mamba::cuda::detail {

/// Rows that a kernel covers: a number that the host knows, or, where `counted` is not null, at most that many and
/// exactly as many as it says, which the device alone knows.
struct Rows {
  Index most = 0;
  const Index* counted = nullptr;

  __device__ Index count() const { return counted == nullptr ? most : *counted; }
};

/// Blocks of 256 threads over a matrix: narrow matrices get several rows to a block, and no index is divided.
struct ElementGrid {
  static constexpr int threads = 256;
  dim3 blocks, block;

  ElementGrid(Index rows, Index columns) {
    unsigned across = warp_size / 4;
    while (across < unsigned(threads) && Index(across) < columns) across *= 2;
    // 129 to 255 columns waste less in steps of 128.
    if (across == unsigned(threads) && columns % threads != 0 && columns % threads <= threads / 2) across /= 2;
    block = dim3(across, unsigned(threads) / across);
    blocks = dim3(unsigned(std::min(ceiling_divide<Index>(rows, block.y), Index{1} << 20)),
                  unsigned(std::min(ceiling_divide<Index>(columns, block.x), Index{1} << 15)));
  }
};

/// Calls each(row, column) for the elements of this thread.
template <class Each>
__device__ inline void walk_elements(Index rows, Index columns, Each&& each) {
  const Index row_step = Index(gridDim.x) * blockDim.y, column_step = Index(gridDim.y) * blockDim.x;
  for (Index row = Index(blockIdx.x) * blockDim.y + threadIdx.y; row < rows; row += row_step) {
    for (Index column = Index(blockIdx.y) * blockDim.x + threadIdx.x; column < columns; column += column_step) {
      each(row, column);
    }
  }
}

template <class Each>
__global__ void __launch_bounds__(ElementGrid::threads) element_kernel(Rows rows, Index columns, Each each) {
  await_stream();
  release_stream();
  walk_elements(rows.count(), columns, each);
}

/// each(row, column) for all elements, each in a thread of its own.
template <class Each>
void for_elements(Device& device, Rows rows, Index columns, const Each& each) {
  if (rows.most == 0 || columns == 0) return;
  const ElementGrid grid(rows.most, columns);
  launch_dependent(device, element_kernel<Each>, grid.blocks, grid.block, 0, rows, columns, each);
}

/// Whether each view can be read as one long row.
template <class... Scalars>
constexpr bool all_contiguous(const MatrixView<Scalars>&... views) {
  return ((views.stride == views.columns || views.rows <= 1) && ...);
}

/// Elements of a row that are read and written together.
template <class T, int count>
struct alignas(sizeof(T) * count) Run {
  T values[count];
};

template <int count, class T>
__device__ inline Run<std::remove_const_t<T>, count> load_run(const MatrixView<T>& from, Index row, Index column) {
  return *reinterpret_cast<const Run<std::remove_const_t<T>, count>*>(&from(row, column));
}
template <int count, class T>
__device__ inline void store_run(const Run<T, count>& run, const MatrixView<T>& to, Index row, Index column) {
  *reinterpret_cast<Run<T, count>*>(&to(row, column)) = run;
}

/// The same elements as another type, in which bfloat16 is calculated with, or rounded to it.
template <class To, class From, int count>
__device__ inline Run<To, count> run_as(const Run<From, count>& run) {
  if constexpr (std::is_same_v<To, From>) {
    return run;
  } else {
    Run<To, count> converted;
#pragma unroll
    for (int i = 0; i < count; ++i) converted.values[i] = static_cast<To>(run.values[i]);
    return converted;
  }
}

/// Elements of a matrix to calculate with, and results on their way into one.
template <int count, class T>
__device__ inline auto load_numbers(const MatrixView<T>& from, Index row, Index column) {
  return run_as<compute_t<std::remove_const_t<T>>>(load_run<count>(from, row, column));
}
template <int count, class C, class T>
__device__ inline void store_numbers(const Run<C, count>& run, const MatrixView<T>& to, Index row, Index column) {
  store_run<count>(run_as<T>(run), to, row, column);
}

/// Whether rows begin where runs may.
template <int count, class... Scalars>
bool all_aligned(const MatrixView<Scalars>&... views) {
  return (
      (reinterpret_cast<std::uintptr_t>(views.data) % (sizeof(Scalars) * count) == 0 && views.stride % count == 0) &&
      ...);
}

template <int count, class Each>
__global__ void __launch_bounds__(ElementGrid::threads) run_kernel(Rows rows, Index columns, Each each) {
  await_stream();
  release_stream();
  walk_elements(rows.count(), columns / count,
                [&](Index row, Index run) { each.template operator()<count>(row, run * count); });
}

/// each.operator()<count>(row, column) for runs of `count` elements that cover the matrix: 16 bytes of the largest
/// scalars where all of `views`, which are what `each` goes through row by row, allow it, single elements otherwise.
template <class Each, class... Scalars>
void for_runs(Device& device, Rows rows, Index columns, const Each& each, const MatrixView<Scalars>&... views) {
  constexpr int wide = 16 / int(std::max({sizeof(Scalars)...}));
  if (rows.most == 0 || columns == 0) return;
  if (columns % wide == 0 && all_aligned<wide>(views...)) {
    const ElementGrid grid(rows.most, columns / wide);
    launch_dependent(device, run_kernel<wide, Each>, grid.blocks, grid.block, 0, rows, columns, each);
  } else {
    const ElementGrid grid(rows.most, columns);
    launch_dependent(device, run_kernel<1, Each>, grid.blocks, grid.block, 0, rows, columns, each);
  }
}

/// A matrix as one long row.
template <class T>
constexpr MatrixView<T> flattened(const MatrixView<T>& view) {
  const Index size = view.rows * view.columns;
  return {view.data, size > 0 ? Index{1} : Index{0}, size, size};
}

/// Partial sums of one number: this many blocks at most, so that one block can add them up.
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

/// How rows are cut where each piece keeps sums of its own over every column.
struct ColumnSumGrid {
  static constexpr int threads = 256;
  Index rows, rows_per_piece;
  unsigned across, pieces;  // threads over columns; pieces of rows

  /// `room`: pieces that there is memory for.
  ColumnSumGrid(Index rows_, Index columns, Index room) : rows(rows_), across(1) {
    while (across < unsigned(warp_size) && Index(across) < columns) across *= 2;
    const Index wanted = std::clamp<Index>(room, 1, 256);
    rows_per_piece = std::max(ceiling_divide(rows, wanted), Index(threads / across) * 4);
    pieces = unsigned(std::max<Index>(1, ceiling_divide(rows, rows_per_piece)));
  }
};

/// partial[piece][array][column] = the sum over the piece's rows of what each(row, column, sums) adds to sums[array].
template <int arrays, class Each>
__global__ void __launch_bounds__(ColumnSumGrid::threads)
    column_sum_kernel(Index rows, Index rows_per_piece, Index columns, Each each, double* partial) {
  await_stream();
  release_stream();
  __shared__ double shared[arrays][ColumnSumGrid::threads];
  const int thread = int(threadIdx.y * blockDim.x + threadIdx.x);
  const Index column = Index(blockIdx.x) * blockDim.x + threadIdx.x;
  const Index first = Index(blockIdx.y) * rows_per_piece, last = min(first + rows_per_piece, rows);
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

/// Columns of a block that adds up pieces, and threads for each of them.
inline constexpr int total_across = 16, total_down = 16;

/// finish(column, sums) for each column, with the sums of all pieces: each of a column's threads adds up every
/// total_down-th piece, and one adds up theirs.
template <int arrays, class Finish>
__global__ void __launch_bounds__(total_across* total_down)
    column_total_kernel(const double* partial, Index pieces, Index columns, Finish finish) {
  await_stream();
  release_stream();
  __shared__ double shared[arrays][total_down][total_across];
  const Index column = Index(blockIdx.x) * total_across + threadIdx.x;
  double sums[arrays] = {};
  if (column < columns) {
#pragma unroll 4
    for (Index piece = threadIdx.y; piece < pieces; piece += total_down) {
      for (int array = 0; array < arrays; ++array) sums[array] += partial[(piece * arrays + array) * columns + column];
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

/// finish(column, sums) with the sums of `pieces` partial ones, as column_sum_kernel leaves them.
template <int arrays, class Finish>
void total_columns(Device& device, const double* partial, Index pieces, Index columns, const Finish& finish) {
  launch_dependent(device, column_total_kernel<arrays, Finish>, unsigned(ceiling_divide<Index>(columns, total_across)),
                   dim3(total_across, total_down), 0, partial, pieces, columns, finish);
}

/// Sums over rows in double for every column: each(row, column, sums) adds to `arrays` sums, finish(column, sums) takes
/// them. Partial sums lie in the device's scratch memory behind `arena`. Throws std::invalid_argument where that is too
/// small for one piece.
template <int arrays, class Each, class Finish>
void sum_columns(Device& device, Index rows, Index columns, const Each& each, const Finish& finish, Arena arena) {
  if (columns == 0) return;
  const Index row_bytes = Index(sizeof(double)) * arrays * columns;
  const Index room = Index(Device::scratch_bytes - arena.used()) / row_bytes;
  require(room >= 1, "columns", columns, "as many as the device's scratch memory takes, 2^22 at least");
  const ColumnSumGrid grid(rows, columns, room);
  double* const partial = arena.take<double>(Index(grid.pieces) * arrays * columns);
  const dim3 blocks(unsigned(ceiling_divide<Index>(columns, grid.across)), grid.pieces);
  const dim3 block(grid.across, unsigned(ColumnSumGrid::threads) / grid.across);
  launch_dependent(device, column_sum_kernel<arrays, Each>, blocks, block, 0, rows, grid.rows_per_piece, columns, each,
                   partial);
  total_columns<arrays>(device, partial, Index(grid.pieces), columns, finish);
}

/// Adds the sums of columns to one array each.
template <class C, int arrays>
struct AddColumnSums {
  C* to[arrays];
  __device__ void operator()(Index column, const double (&sums)[arrays]) const {
    for (int array = 0; array < arrays; ++array) {
      to[array][column] = static_cast<C>(double(to[array][column]) + sums[array]);
    }
  }
};

/// Lets a kernel have `bytes` of shared memory, which may be more than every kernel gets.
template <class Kernel>
void allow_shared(Kernel* kernel, std::size_t bytes) {
  if (bytes <= std::size_t{48} << 10) return;
  check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(bytes)),
        "cudaFuncSetAttribute");
}

}  // namespace moe_mamba::cuda::detail
