#pragma once

#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/cuda/common/mma.cuh"
#include "moe_mamba/cuda/linear/async_copy.cuh"
#include "moe_mamba/cuda/linear/tile_walk.cuh"

namespace moe_mamba::inline v0_2::cuda::detail {

/// Whether to transpose what matrix instructions read of a factor: they take lines of the inner dimension.
template <Along along>
inline constexpr Transpose transpose_of = along == Along::inner ? Transpose::no : Transpose::yes;

/// How a step of a product of bfloat16 factors lies in shared memory.
///
/// A step holds 64 of the inner index. Lines are 64 elements long: of the inner index, one for each row of a and each
/// column of b; or, where the rows of a or the columns of b are contiguous, of 64 of them, one line for each of the
/// inner index, block after block. The eight runs of 16 bytes of a line are swapped by its number, so that eight lines
/// of one run lie in different banks.
struct TensorStep {
  static constexpr int threads = 256;
  static constexpr int rows = 128, inner = 64;
  static constexpr unsigned line_bytes = inner * sizeof(bfloat16);
  static constexpr unsigned alignment = 8 * line_bytes;  // of each factor
};

/// A tile: its columns, the steps that shared memory has room for, steps that may still be multiplied while the next
/// one begins to be, the blocks that a processor runs at a time, and whether sums are staged in shared memory, so that
/// no thread waits for stores to device memory.
template <int columns_, int stages_, int pending_, int blocks_, bool staged_>
struct TensorTile : TensorStep {
  static constexpr int columns = columns_, stages = stages_, pending = pending_, blocks = blocks_;
  static constexpr bool staged = staged_;
  static constexpr unsigned a_bytes = rows * line_bytes, b_bytes = columns * line_bytes;
  static constexpr unsigned control_bytes = 768;
  /// Threads of a block that only copy, in code for sm_90a: a whole warpgroup can give its registers to others.
  static constexpr int copying_threads = blocks == 1 ? 128 : 32;

  /// Sums of type C: eight rows of each warp, and bytes from one to the next, so that few lie in the same banks.
  template <class C>
  static constexpr unsigned staged_row_bytes = columns * sizeof(C) + (sizeof(C) == 4 ? 64 : 16);
  template <class C>
  static constexpr unsigned staged_bytes = staged ? 8 * staged_row_bytes<C> : 0;  // of a warp
  template <class C>
  static constexpr int shared_bytes = int(stages*(a_bytes + b_bytes) + threads / 32 * staged_bytes<C> + control_bytes +
                                          alignment);
};

/// Most arithmetic for what is read, of sums in float; and for results in bfloat16, which there is room to stage.
using WideTile = TensorTile<256, 4, 1, 1, false>;
using WideShortTile = TensorTile<256, 4, 1, 1, true>;
/// Half as large, where that balances the work of multiprocessors better.
using MediumTile = TensorTile<128, 6, 1, 1, true>;
/// All that devices other than compute capability 9.0 and 10.0 have shared memory for; on these, two blocks of matrices
/// of few columns run at a time.
using PairedTile = TensorTile<128, 3, 0, 2, false>;
/// Four times as many tiles, where those of 256 columns are too few for the device.
using NarrowTile = TensorTile<64, 8, 1, 1, false>;

/// What a thread copies itself of a factor, `lines` lines of `length` contiguous elements (in blocks of 64), step by
/// step.
template <int lines, int length>
struct LineCopies {
  static constexpr int across = length / 8, apart = TensorStep::threads / across;
  static_assert(apart % 8 == 0 && lines % apart == 0);
  const bfloat16* at;
  Index line_step;
  int line, column;
  unsigned offset;

  __device__ LineCopies(const bfloat16* data, Index stride)
      : line_step(apart * stride), line(int(threadIdx.x) / across), column(int(threadIdx.x) % across * 8) {
    at = data + line * stride + column;
    const unsigned block = unsigned(column) / 64, run = unsigned(column) % 64 / 8;
    offset = (block * unsigned(lines) + unsigned(line)) * TensorStep::line_bytes + (run ^ unsigned(line) % 8) * 16;
  }

  /// Copies those of the first lines and columns that are there, and zeros for the others. `any` is memory that may be
  /// named without being read.
  __device__ void copy(unsigned to, Index lines_left, Index columns_left, const bfloat16* any) const {
    const int present = column < columns_left ? int(min(lines_left, Index{lines})) : 0;
#pragma unroll
    for (int j = 0; j < lines / apart; ++j) {
      const bool here = line + j * apart < present;
      copy_async(to + offset + unsigned(j * apart) * TensorStep::line_bytes, here ? at + j * line_step : any,
                 here ? 16 : 0);
    }
  }
};

}  // namespace moe_mamba::inline v0_2::cuda::detail
