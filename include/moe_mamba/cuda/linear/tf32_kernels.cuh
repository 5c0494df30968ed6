#pragma once

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/linear/async_copy.cuh"
#include "moe_mamba/cuda/linear/epilogue.cuh"
#include "moe_mamba/cuda/linear/result_rows.cuh"
#include "moe_mamba/cuda/linear/tile_walk.cuh"
#include "moe_mamba/ops/linear.hpp"

/// Grouped products of floats in TF32 on tensor cores: factors are rounded to TF32 (10-bit mantissa) when they are read
/// from shared memory; sums are float.
namespace moe_mamba::inline v0_2::cuda::detail {

/// A tile by eight warps, and how a step of the inner index lies in shared memory.
struct Tf32Tile {
  static constexpr int threads = 256;
  static constexpr int side = 128, inner = 32;  // rows and columns of a tile, inner index of a step
  static constexpr int stages = 2, blocks = 2;  // blocks that a processor runs at a time
  static constexpr unsigned factor_bytes = side * (inner + 4) * sizeof(float);
  static constexpr int shared_bytes = int(2 * stages * factor_bytes);
};

/// A factor in shared memory: its lines are contiguous as in device memory, along the inner index or
/// across it, and so far apart that the eight by four elements which a warp reads together lie in different banks.
template <Along along>
class Tf32Factor {
 public:
  /// Values of the other index from `data` on, `count` of them or as many as the tile has, lie `stride` elements apart
  /// or, with Along::outer, those of the inner index do.
  __device__ Tf32Factor(const float* data, Index stride, Index count)
      : any_(data),
        stride_(stride),
        count_(count),
        line_(int(threadIdx.x) / across),
        column_(int(threadIdx.x) % across * 4) {
    at_ = data + line_ * stride + column_;
  }

  /// Copies the next step, of which `k_left` values of the inner index are there.
  __device__ void copy(unsigned to, Index k_left) {
    const int lines_left = int(min(along == Along::inner ? count_ : k_left, Index{lines}));
    const int columns_left = int(min((along == Along::inner ? k_left : count_) - column_, Index{4}));
#pragma unroll
    for (int line = line_; line < line_ + lines; line += apart) {
      const bool here = line < lines_left && columns_left > 0;
      copy_async(to + unsigned(line * pitch + column_) * unsigned(sizeof(float)),
                 here ? at_ + (line - line_) * stride_ : any_, here ? columns_left * int(sizeof(float)) : 0);
    }
    at_ += along == Along::inner ? Tile::inner : Tile::inner * stride_;
  }

  /// Element k of the inner and i of the other index, rounded to nearest, ties away from zero.
  __device__ static unsigned load(const float* from, int k, int i) {
    unsigned rounded;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(from[along == Along::inner ? i * pitch + k : k * pitch + i]));
    return rounded;
  }

 private:
  using Tile = Tf32Tile;
  static constexpr int length = along == Along::inner ? Tile::inner : Tile::side;
  static constexpr int lines = along == Along::inner ? Tile::side : Tile::inner;
  static constexpr int pitch = length + (along == Along::inner ? 4 : 8);
  static constexpr int across = length / 4, apart = Tile::threads / across;
  static_assert(lines * pitch * sizeof(float) <= Tile::factor_bytes && lines % apart == 0);

  const float *at_, *any_;
  Index stride_, count_;
  int line_, column_;
};

/// A warp's share of a tile: 64 by 32.
struct Tf32Product {
  static constexpr int row_parts = 4, column_parts = 4;
  float sums[row_parts][column_parts][4] = {};

  __device__ static int first_row() { return warp_index() / 4 * 64; }
  __device__ static int first_column() { return warp_index() % 4 * 32; }

  /// sums (16 by 8) += a (16 by 8) b (8 by 8)
  __device__ static void multiply_matrices(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }

  /// sums += the step whose factors lie at `a` and `b`
  template <class A, class B>
  __device__ void multiply(const float* a, const float* b) {
    const int lane = lane_index(), across = lane / 4, down = lane % 4;
#pragma unroll
    for (int k = 0; k < Tf32Tile::inner; k += 8) {
      unsigned a_parts[row_parts][4], b_parts[column_parts][2];
#pragma unroll
      for (int i = 0; i < row_parts; ++i) {
#pragma unroll
        for (int part = 0; part < 4; ++part) {
          a_parts[i][part] = A::load(a, k + down + part / 2 * 4, first_row() + i * 16 + across + part % 2 * 8);
        }
      }
#pragma unroll
      for (int j = 0; j < column_parts; ++j) {
#pragma unroll
        for (int part = 0; part < 2; ++part) {
          b_parts[j][part] = B::load(b, k + down + part * 4, first_column() + j * 8 + across);
        }
      }
#pragma unroll
      for (int i = 0; i < row_parts; ++i) {
#pragma unroll
        for (int j = 0; j < column_parts; ++j) multiply_matrices(sums[i][j], a_parts[i], b_parts[j]);
      }
    }
  }
};

/// The product of a tile. The whole block calls; shared memory may be used again when it returns.
template <class A, class B>
__device__ inline Tf32Product multiply_tf32(const float* shared, A a, B b, Index k_count) {
  using Tile = Tf32Tile;
  constexpr unsigned factor_floats = Tile::factor_bytes / sizeof(float);
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  const auto copy_step = [&](Index at) {
    const Index k_left = k_count - at * Tile::inner;
    if (k_left > 0) {
      const unsigned to = address + unsigned(at % Tile::stages) * 2 * Tile::factor_bytes;
      a.copy(to, k_left);
      b.copy(to + Tile::factor_bytes, k_left);
    }
    end_copies();
  };
  Tf32Product product;
  for (int at = 0; at < Tile::stages - 1; ++at) copy_step(at);
  for (Index at = 0; at * Tile::inner < k_count; ++at) {
    wait_copies<Tile::stages - 2>();
    __syncthreads();  // step `at` is there for all, and what comes next overwrites has been read by all
    copy_step(at + Tile::stages - 1);
    const float* const step = shared + unsigned(at % Tile::stages) * 2 * factor_floats;
    product.multiply<A, B>(step, step + factor_floats);
  }
  wait_copies<0>();
  __syncthreads();
  return product;
}

/// y = or += x B for rows in groups, as grouped_kernel. Needs rows of x and weights that are aligned to 16 bytes.
template <Along along>
__global__ void __launch_bounds__(Tf32Tile::threads, Tf32Tile::blocks)
    grouped_tf32_kernel(Groups groups, MatrixView<const float> x, const float* weight, Index step, Index stride,
                        ResultRows<float> y, Into into) {
  extern __shared__ float4 shared_floats[];
  TileWalk walk(groups, 0, x.rows, Tf32Tile::side, Tf32Tile::side, y.columns);
  for (Index tile = blockIdx.x; walk.find(tile); tile += gridDim.x) {
    const Tf32Factor<Along::inner> a(x.row(walk.first_row), x.stride, walk.rows);
    const Tf32Factor<along> b(weight + walk.group * step + (along == Along::inner ? walk.column * stride : walk.column),
                              stride, y.columns - walk.column);
    const Tf32Product product = multiply_tf32(reinterpret_cast<const float*>(shared_floats), a, b, x.columns);
    write_sums(product, y.row_block(walk.first_row, walk.rows).column_block(walk.column, y.columns - walk.column),
               into);
  }
}

/// dweight of each group = or += dyᵀ x over the rows of the group, which are aligned to 16 bytes.
template <class C>
__global__ void __launch_bounds__(Tf32Tile::threads, Tf32Tile::blocks)
    grouped_weight_tf32_kernel(Groups groups, MatrixView<const C> dy, MatrixView<const C> x, MatrixStack<C> dweight,
                               Into into) {
  extern __shared__ float4 shared_floats[];
  WeightTileWalk walk(groups, 0, x.rows, 1, into == Into::assign, Tf32Tile::side, Tf32Tile::side, dweight.rows,
                      dweight.columns);
  for (Index tile = blockIdx.x; walk.find(tile); tile += gridDim.x) {
    const Index rows = dweight.rows - walk.row, columns = dweight.columns - walk.column;
    const Tf32Factor<Along::outer> a(dy.row(walk.first_row) + walk.row, dy.stride, rows);
    const Tf32Factor<Along::outer> b(x.row(walk.first_row) + walk.column, x.stride, columns);
    const Tf32Product product = multiply_tf32(reinterpret_cast<const float*>(shared_floats), a, b, walk.rows);
    const Index at = (walk.group * dweight.rows + walk.row) * dweight.columns + walk.column;
    write_sums(product, MatrixView<float>{dweight.data + at, rows, columns, dweight.columns}, into);
  }
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
