#pragma once

#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/cuda/block/reduce.cuh"

namespace moe_mamba::cuda::detail {

/// How a tile of a product of bfloat16 factors lies in shared memory, and how it comes there.
///
/// A step of the inner index holds 64 of it. Lines are 64 elements long: of the inner index, one for each row of a and
/// each column of b; or, where the columns of b are contiguous, of 64 columns, one for each of the inner index, block
/// after block. The eight runs of 16 bytes of a line are swapped by its number, so that eight lines of one run lie in
/// different banks.
struct TensorTile {
  static constexpr int threads = 256;
  static constexpr int rows = 128, columns = 256, inner = 64;
  static constexpr int stages = 4;
  static constexpr unsigned line_bytes = inner * sizeof(bfloat16);
  static constexpr unsigned a_bytes = rows * line_bytes, b_bytes = columns * line_bytes;
  static constexpr unsigned alignment = 8 * line_bytes;  // of each factor
  static constexpr int shared_bytes = int(stages * (a_bytes + b_bytes) + alignment);
};

/// Copies 16 bytes to shared memory without waiting, or zeros where there is nothing to read.
__device__ inline void copy_async(unsigned to, const bfloat16* from, bool present) {
  const int bytes = present ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
__device__ inline void end_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most `pending` of the last groups of copies are not done.
template <int pending>
__device__ inline void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

/// What a thread copies of a factor, `lines` lines of `length` contiguous elements (in blocks of 64), step by step.
template <int lines, int length>
struct LineCopies {
  static constexpr int across = length / 8, apart = TensorTile::threads / across;
  static_assert(apart % 8 == 0 && lines % apart == 0);
  const bfloat16* at;
  Index line_step;
  int line, column;
  unsigned offset;

  __device__ LineCopies(const bfloat16* data, Index stride)
      : line_step(apart * stride), line(int(threadIdx.x) / across), column(int(threadIdx.x) % across * 8) {
    at = data + line * stride + column;
    const unsigned block = unsigned(column) / 64, run = unsigned(column) % 64 / 8;
    offset = (block * unsigned(lines) + unsigned(line)) * TensorTile::line_bytes + (run ^ unsigned(line) % 8) * 16;
  }

  /// Copies those of the first lines and columns that are there, and zeros for the others. `any` is memory that may be
  /// named without being read.
  __device__ void copy(unsigned to, Index lines_left, Index columns_left, const bfloat16* any) const {
    const int present = column < columns_left ? int(min(lines_left, Index{lines})) : 0;
#pragma unroll
    for (int j = 0; j < lines / apart; ++j) {
      const bool here = line + j * apart < present;
      copy_async(to + offset + unsigned(j * apart) * TensorTile::line_bytes, here ? at + j * line_step : any, here);
    }
  }
};

}  // namespace moe_mamba::cuda::detail
