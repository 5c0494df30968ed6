#pragma once

#include <cstdint>

#include "moe_mamba/cuda/pieces.cuh"

/// Rounding of activations to bfloat16 for products with weights of it.
namespace moe_mamba::cuda::detail {

template <class T>
bool aligned_to_16(const T* data, Index stride) {
  return reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && stride * Index(sizeof(T)) % 16 == 0;
}

/// Two floats rounded to nearest, ties to even, the first in the lower half.
__device__ inline unsigned rounded_pair(float first, float second) {
  unsigned pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
}

/// Eight elements of a row, `run` of them, at a time; `wide` where rows are aligned and whole runs.
template <bool wide>
struct RoundRun {
  MatrixView<const float> x;
  MatrixView<bfloat16> y;
  __device__ void operator()(Index row, Index run) const {
    bfloat16* const to = y.row(row) + run * 8;
    if constexpr (wide) {
      const auto low = load_run<4>(x, row, run * 8), high = load_run<4>(x, row, run * 8 + 4);
      *reinterpret_cast<uint4*>(to) =
          uint4{rounded_pair(low.values[0], low.values[1]), rounded_pair(low.values[2], low.values[3]),
                rounded_pair(high.values[0], high.values[1]), rounded_pair(high.values[2], high.values[3])};
    } else {
      for (Index i = 0; i < 8 && run * 8 + i < x.columns; ++i) to[i] = bfloat16(x(row, run * 8 + i));
    }
  }
};

/// Elements from one row of rounded activations to the next, which is aligned to 16 bytes.
inline Index rounded_stride(Index columns) { return ceiling_divide<Index>(std::max<Index>(columns, 1), 8) * 8; }

/// Rows of `stride` elements of bfloat16 in all that fit into the scratch memory at a time, but for its last `reserved`
/// bytes.
inline Index most_rounded_rows(Index stride, Index reserved = 0) {
  const Index room = (Index(Device::scratch_bytes) - reserved) / Index(sizeof(bfloat16)) / stride;
  require(room >= 1, "columns", stride, "as many as the device's scratch memory takes, 2^24 at least");
  return room >= 128 ? room / 128 * 128 : room;
}

/// x rounded to `to` with rounded_stride(), rows aligned to 16 bytes.
inline MatrixView<const bfloat16> round_rows(Device& device, MatrixView<const float> x, bfloat16* to) {
  const MatrixView<bfloat16> y{to, x.rows, x.columns, rounded_stride(x.columns)};
  const Index runs = ceiling_divide<Index>(x.columns, 8);
  if (x.columns % 8 == 0 && aligned_to_16(x.data, x.stride)) {
    for_elements(device, {x.rows}, runs, RoundRun<true>{x, y});
  } else {
    for_elements(device, {x.rows}, runs, RoundRun<false>{x, y});
  }
  return y;
}

/// each(first, rounded rows of x from `first` on) for all rows, as many at a time as fit into the scratch memory.
template <class Each>
void for_rounded_rows(Device& device, MatrixView<const float> x, const Each& each) {
  const Index most = most_rounded_rows(rounded_stride(x.columns));
  for (Index first = 0; first < x.rows; first += most) {
    const Index rows = std::min(most, x.rows - first);
    each(first, round_rows(device, x.row_block(first, rows), reinterpret_cast<bfloat16*>(device.scratch())));
  }
}

/// each(first, rounded rows of a, rounded rows of b), the same for two matrices of as many rows; leaves the last `reserved`
/// bytes of the scratch memory alone.
template <class Each>
void for_rounded_rows(Device& device, MatrixView<const float> a, MatrixView<const float> b, Index reserved,
                      const Each& each) {
  const Index a_stride = rounded_stride(a.columns);
  const Index most = most_rounded_rows(a_stride + rounded_stride(b.columns), reserved);
  auto* const scratch = reinterpret_cast<bfloat16*>(device.scratch());
  for (Index first = 0; first < a.rows; first += most) {
    const Index rows = std::min(most, a.rows - first);
    const auto a_rounded = round_rows(device, a.row_block(first, rows), scratch);
    const auto b_rounded = round_rows(device, b.row_block(first, rows), scratch + rows * a_stride);
    each(first, a_rounded, b_rounded);
  }
}

}  // namespace moe_mamba::cuda::detail
