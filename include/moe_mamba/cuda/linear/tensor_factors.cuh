#pragma once

#include <cuda.h>
#include <string>

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/cuda/linear/tensor_tile.cuh"

/// The factors of grouped products of bfloat16 matrices, as arguments of kernels.
namespace moe_mamba::inline v0_2::cuda::detail {

/// The factor a, and the factors b of all groups, each `b_step` elements after the one before. What is contiguous in a
/// line is the inner index or, with Along::outer, the rows of a or the columns of b. Lines are aligned to 16 bytes.
struct TensorFactors {
  MatrixView<const bfloat16> a, b;  // as they lie in memory, b that of the first group
  Index b_step, groups;
};

/// A tile of a product: rows of a from `row` on, columns of a group's b from `column` on, `k_count` of the inner index
/// from `k` on. Its sums go to rows from `out` on, or to the `places` of its rows counted from there.
template <class C>
struct TensorSource {
  Index row, column, k, group;
  Index rows, columns, k_count;  // that there are; a tile may have fewer rows and columns
  C* out;
  const Index* places;
};

/// Descriptions of both factors for copies of boxes of 64 lines by 64 elements of each.
struct TensorMaps {
  CUtensorMap a, b;
};

/// A description of as many matrices that lie `step` elements apart; of one alone, if that is 0. Throws Error.
inline CUtensorMap tensor_map(const Device& device, MatrixView<const bfloat16> matrix, Index matrices, Index step) {
  // A single row needs a valid stride too.
  const Index stride = matrix.rows > 1 ? matrix.stride : ceiling_divide(matrix.columns, Index{8}) * 8;
  const cuuint64_t sizes[]{cuuint64_t(matrix.columns), cuuint64_t(matrix.rows), cuuint64_t(matrices)};
  const cuuint64_t strides[]{cuuint64_t(stride) * sizeof(bfloat16),
                             cuuint64_t(matrices == 1 ? matrix.rows * stride : step) * sizeof(bfloat16)};
  const cuuint32_t box[]{TensorStep::inner, TensorStep::inner, 1}, apart[]{1, 1, 1};
  CUtensorMap map;
  const auto encode = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(device.tensor_map_encoder());
  const CUresult result =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, step == 0 ? 2 : 3, const_cast<bfloat16*>(matrix.data), sizes,
             strides, box, apart, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    throw_error("cuTensorMapEncodeTiled", "CUresult " + std::to_string(int(result)) + " for " +
                                              std::to_string(matrices) + " matrices of " + std::to_string(matrix.rows) +
                                              " x " + std::to_string(matrix.columns) + ", rows " +
                                              std::to_string(stride) + " apart");
  }
  return map;
}

inline TensorMaps tensor_maps(const Device& device, const TensorFactors& factors) {
  return {tensor_map(device, factors.a, 1, 0), tensor_map(device, factors.b, factors.groups, factors.b_step)};
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
