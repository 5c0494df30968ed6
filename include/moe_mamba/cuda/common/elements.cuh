#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/cuda/common/launch.cuh"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/device.hpp"

/// Element-wise operations: one thread per element of a matrix, or per vector of a row.
///
/// The operation on an element is a type with a `__device__` call operator, passed to the kernel by value.
namespace moe_mamba::inline v0_2::cuda::detail {

/// The number of rows that a kernel covers: `most` or, if `counted` is not null, *counted <= most, which only the
/// device knows.
struct Rows {
  Index most = 0;
  const Index* counted = nullptr;

  __device__ Index count() const { return counted == nullptr ? most : *counted; }
};

/// Two-dimensional blocks of 256 threads over a matrix: narrow matrices get several rows per block, and no index needs
/// a division.
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

/// Calls each(row, column) for all elements, one per thread.
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

template <int count, class Each>
__global__ void __launch_bounds__(ElementGrid::threads) vector_kernel(Rows rows, Index columns, Each each) {
  await_stream();
  release_stream();
  walk_elements(rows.count(), columns / count,
                [&](Index row, Index run) { each.template operator()<count>(row, run * count); });
}

/// Calls each.operator()<count>(row, column) for vectors of `count` elements that cover the matrix: 16 bytes of the
/// largest scalar if the alignment of all `views` (the matrices that `each` accesses by row) allows it, single elements
/// otherwise.
template <class Each, class... Scalars>
void for_vectors(Device& device, Rows rows, Index columns, const Each& each, const MatrixView<Scalars>&... views) {
  constexpr int wide = 16 / int(std::max({sizeof(Scalars)...}));
  if (rows.most == 0 || columns == 0) return;
  if (can_vectorise<wide>(views...)) {
    const ElementGrid grid(rows.most, columns / wide);
    launch_dependent(device, vector_kernel<wide, Each>, grid.blocks, grid.block, 0, rows, columns, each);
  } else {
    const ElementGrid grid(rows.most, columns);
    launch_dependent(device, vector_kernel<1, Each>, grid.blocks, grid.block, 0, rows, columns, each);
  }
}

/// A matrix as one long row.
template <class T>
constexpr MatrixView<T> flattened(const MatrixView<T>& view) {
  const Index size = view.rows * view.columns;
  return {view.data, size > 0 ? Index{1} : Index{0}, size, size};
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
