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

/// Rows of activations at a time that fit rounded into the scratch memory, each aligned to 16 bytes.
struct RoundedRows {
  Index stride, most;

  explicit RoundedRows(Index columns) : stride(ceiling_divide<Index>(std::max<Index>(columns, 1), 8) * 8) {
    const Index room = Index(Device::scratch_bytes / sizeof(bfloat16)) / stride;
    require(room >= 1, "columns", columns, "as many as the device's scratch memory takes, 2^24 at least");
    most = room >= 128 ? room / 128 * 128 : room;
  }

  /// x, at most `most` rows of it, rounded into the scratch memory.
  MatrixView<const bfloat16> round(Device& device, MatrixView<const float> x) const {
    const MatrixView<bfloat16> y{reinterpret_cast<bfloat16*>(device.scratch()), x.rows, x.columns, stride};
    const Index runs = ceiling_divide<Index>(x.columns, 8);
    if (x.columns % 8 == 0 && aligned_to_16(x.data, x.stride)) {
      for_elements(device, {x.rows}, runs, RoundRun<true>{x, y});
    } else {
      for_elements(device, {x.rows}, runs, RoundRun<false>{x, y});
    }
    return y;
  }
};

}  // namespace moe_mamba::cuda::detail
