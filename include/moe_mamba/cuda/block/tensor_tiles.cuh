#pragma once

#include <cstdint>

#include "moe_mamba/cuda/block/tiles.cuh"

/// Grouped products with bfloat16 weights on tensor cores (compute capability 8.0 and up): activations are rounded to
/// bfloat16 on their way into shared memory, products are summed in float.
namespace moe_mamba::cuda::detail {

/// What a tile is made of. A warp's share is 64 by 64: as much arithmetic for what it reads as registers allow.
struct TensorTile {
  static constexpr int threads = 256;
  static constexpr int rows = 128, columns = 256, inner = 32;
  static constexpr int warp_rows = 64, warp_columns = 64;
  static constexpr int stages = 4;
  // Lines of shared memory are 16 bytes longer than their content, so that eight of them lie in different banks.
  static constexpr int a_pitch = inner + 8;
  static constexpr int a_size = rows * a_pitch;
  static constexpr int b_size = columns * (inner + 8);  // at least inner · (columns + 8) as well
  static constexpr int shared_bytes = stages * (a_size + b_size) * int(sizeof(bfloat16));
  static_assert(b_size >= inner * (columns + 8));
};

/// Copies 16 bytes to shared memory without waiting, or zeros where there is nothing to read.
__device__ inline void copy_async(bfloat16* to, const bfloat16* from, bool present) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  const int bytes = present ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes) : "memory");
}
__device__ inline void end_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most `pending` of the last groups of copies are not done.
template <int pending>
__device__ inline void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

/// Four 8 by 8 matrices from shared memory, transposed or not; each lane names a line.
template <bool transposed>
__device__ inline void load_matrices(unsigned (&to)[4], const bfloat16* line) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(line));
  if constexpr (transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
  }
}

/// sums (16 by 8) += a (16 by 16) b (16 by 8)
__device__ inline void multiply_matrices(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Two floats rounded to bfloat16, the first in the lower half.
__device__ inline unsigned rounded_pair(float first, float second) {
  unsigned pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
}

/// The part of a tile's activations that a thread carries from device to shared memory: runs of four.
struct ActivationLoads {
  static constexpr int runs = TensorTile::rows * TensorTile::inner / 4 / TensorTile::threads;
  static constexpr int runs_across = TensorTile::inner / 4;
  float4 values[runs];

  __device__ static int row(int run) { return (int(threadIdx.x) + run * TensorTile::threads) / runs_across; }
  __device__ static int column(int run) { return (int(threadIdx.x) + run * TensorTile::threads) % runs_across * 4; }

  __device__ void load(const float* x, Index stride, Index rows, Index k_first, Index k_count) {
    for (int run = 0; run < runs; ++run) {
      const Index k = k_first + column(run);
      values[run] = row(run) < rows && k < k_count ? *reinterpret_cast<const float4*>(x + row(run) * stride + k)
                                                   : float4{0, 0, 0, 0};
    }
  }
  __device__ void store(bfloat16* to) const {
    for (int run = 0; run < runs; ++run) {
      const float4& four = values[run];
      *reinterpret_cast<uint2*>(to + row(run) * TensorTile::a_pitch + column(run)) =
          uint2{rounded_pair(four.x, four.y), rounded_pair(four.z, four.w)};
    }
  }
};

/// Weights of a tile: lines of the inner index (columns of them), or, not `inner_contiguous`, lines of columns.
template <bool inner_contiguous>
__device__ inline void load_weights(bfloat16* to, const bfloat16* weight, Index stride, Index column, Index columns,
                                    Index k_first, Index k_count) {
  constexpr int lines = inner_contiguous ? TensorTile::columns : TensorTile::inner;
  constexpr int across = (inner_contiguous ? TensorTile::inner : TensorTile::columns) / 8;
  for (int run = int(threadIdx.x); run < lines * across; run += TensorTile::threads) {
    const int line = run / across, at = run % across * 8;
    const Index i = column + (inner_contiguous ? line : at), k = k_first + (inner_contiguous ? at : line);
    const bool present = i < columns && k < k_count;
    const bfloat16* from = weight + (inner_contiguous ? i * stride + k : k * stride + i);
    copy_async(to + line * (across * 8 + 8) + at, present ? from : weight, present);
  }
}

/// y = or += x B for rows in groups, as grouped_kernel. Needs 16-byte aligned rows of x and weight, and a number of
/// elements that are contiguous in the weights that 8 divides, as well as the inner size.
template <bool inner_contiguous>
__global__ void __launch_bounds__(TensorTile::threads, 1)
    grouped_tensor_kernel(Groups groups, MatrixView<const float> x, const bfloat16* weight, Index step, Index stride,
                          MatrixView<float> y, bool add) {
  using Tile = TensorTile;
  constexpr int row_parts = Tile::warp_rows / 16, column_parts = Tile::warp_columns / 8;
  constexpr int b_pitch = inner_contiguous ? Tile::inner + 8 : Tile::columns + 8;
  extern __shared__ uint4 shared_words[];
  auto* const a_shared = reinterpret_cast<bfloat16*>(shared_words);
  auto* const b_shared = a_shared + Tile::stages * Tile::a_size;
  const int lane = int(threadIdx.x) % warp_size, warp = int(threadIdx.x) / warp_size;
  const int warp_row = warp / (Tile::columns / Tile::warp_columns) * Tile::warp_rows;
  const int warp_column = warp % (Tile::columns / Tile::warp_columns) * Tile::warp_columns;
  const Index k_count = x.columns, steps = ceiling_divide(k_count, Index{Tile::inner});

  TileWalk walk(groups, Tile::rows, Tile::columns, y.columns);
  for (Index tile = blockIdx.x; walk.find(tile); tile += gridDim.x) {
    const float* const a = x.row(walk.first_row);
    const bfloat16* const b = weight + walk.group * step;
    const bool busy = warp_row < walk.rows;  // whether any of this warp's rows are there
    float sums[row_parts][column_parts][4] = {};
    ActivationLoads loads;

    const auto copy_weights = [&](Index at) {
      if (at < steps) {
        load_weights<inner_contiguous>(b_shared + at % Tile::stages * Tile::b_size, b, stride, walk.column, y.columns,
                                       at * Tile::inner, k_count);
      }
      end_copies();
    };
    for (int at = 0; at < Tile::stages - 1; ++at) copy_weights(at);
    for (int at = 0; at < 2; ++at) {
      loads.load(a, x.stride, walk.rows, at * Tile::inner, k_count);
      loads.store(a_shared + at * Tile::a_size);
    }

    for (Index at = 0; at < steps; ++at) {
      wait_copies<Tile::stages - 2>();
      __syncthreads();  // step `at` is there for all, and step `at - 1` has been read by all
      copy_weights(at + Tile::stages - 1);
      const bool more = at + 2 < steps;
      if (more) loads.load(a, x.stride, walk.rows, (at + 2) * Tile::inner, k_count);

      const bfloat16* const a_stage = a_shared + at % Tile::stages * Tile::a_size;
      const bfloat16* const b_stage = b_shared + at % Tile::stages * Tile::b_size;
      if (busy) {
#pragma unroll
        for (int k = 0; k < Tile::inner; k += 16) {
          unsigned a_parts[row_parts][4];
#pragma unroll
          for (int i = 0; i < row_parts; ++i) {
            load_matrices<false>(a_parts[i],
                                 a_stage + (warp_row + i * 16 + lane % 16) * Tile::a_pitch + k + lane / 16 * 8);
          }
#pragma unroll
          for (int j = 0; j < column_parts; j += 2) {
            unsigned b_parts[4];  // two parts of 8 columns
            const int column = warp_column + j * 8 + lane / 16 * 8;
            if constexpr (inner_contiguous) {
              load_matrices<false>(b_parts, b_stage + (column + lane % 8) * b_pitch + k + lane / 8 % 2 * 8);
            } else {
              load_matrices<true>(b_parts, b_stage + (k + lane % 16) * b_pitch + column);
            }
#pragma unroll
            for (int i = 0; i < row_parts; ++i) {
              multiply_matrices(sums[i][j], a_parts[i], b_parts[0], b_parts[1]);
              multiply_matrices(sums[i][j + 1], a_parts[i], b_parts[2], b_parts[3]);
            }
          }
        }
      }
      if (more) loads.store(a_shared + (at + 2) % Tile::stages * Tile::a_size);
    }
    wait_copies<0>();
    __syncthreads();  // shared memory is free for the next tile

    const bool pairs = y.stride % 2 == 0 && reinterpret_cast<std::uintptr_t>(y.data) % sizeof(float2) == 0;
#pragma unroll
    for (int i = 0; i < row_parts; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = warp_row + i * 16 + half * 8 + lane / 4;
        if (row >= walk.rows) continue;
        float* const to = y.row(walk.first_row + row);
#pragma unroll
        for (int j = 0; j < column_parts; ++j) {
          const Index column = walk.column + warp_column + j * 8 + lane % 4 * 2;
          float first = sums[i][j][half * 2], second = sums[i][j][half * 2 + 1];
          if (pairs && column + 1 < y.columns) {
            auto* const pair = reinterpret_cast<float2*>(to + column);
            if (add) {
              first += pair->x;
              second += pair->y;
            }
            *pair = float2{first, second};
          } else {
            if (column < y.columns) to[column] = add ? to[column] + first : first;
            if (column + 1 < y.columns) to[column + 1] = add ? to[column + 1] + second : second;
          }
        }
      }
    }
  }
}

}  // namespace moe_mamba::cuda::detail
