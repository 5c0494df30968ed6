#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/cuda/common/elements.cuh"
#include "moe_mamba/cuda/common/rounding.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/device.hpp"

/// Activations as factors of products with bfloat16 weights: rounded to bfloat16 where they are of another type.
namespace moe_mamba::inline v0_2::cuda::detail {

/// Eight elements of a row, `vector` of them, at a time; `wide` where rows of floats are aligned and whole vectors.
template <bool wide, class C>
struct RoundVector {
  MatrixView<const C> x;
  MatrixView<bfloat16> y;
  __device__ void operator()(Index row, Index vector) const {
    bfloat16* const to = y.row(row) + vector * 8;
    if constexpr (wide) {
      const auto low = load<4>(x, row, vector * 8), high = load<4>(x, row, vector * 8 + 4);
      *reinterpret_cast<Packed<bfloat16, 8>*>(to) = Packed<bfloat16, 8>{
          rounded_pair(low.values[0], low.values[1]), rounded_pair(low.values[2], low.values[3]),
          rounded_pair(high.values[0], high.values[1]), rounded_pair(high.values[2], high.values[3])};
    } else {
      for (Index i = 0; i < 8 && vector * 8 + i < x.columns; ++i) {
        to[i] = static_cast<bfloat16>(static_cast<float>(x(row, vector * 8 + i)));
      }
    }
  }
};

/// Elements from one row of rounded activations to the next, which is aligned to 16 bytes.
inline Index rounded_stride(Index columns) { return ceiling_divide<Index>(std::max<Index>(columns, 1), 8) * 8; }

/// What takes a factor of a product: cuBLAS takes bfloat16 as it lies, tiles want rows that are aligned to 16 bytes and
/// whole vectors.
enum class FactorOf { blas, tiles };

/// Whether a matrix is such a factor already.
template <FactorOf use, class T>
bool is_factor(const MatrixView<T>& x) {
  if constexpr (!std::is_same_v<std::remove_const_t<T>, bfloat16>) return false;
  return use == FactorOf::blas || can_vectorise<8>(x);
}

/// Elements of scratch memory that a row takes as a factor.
template <FactorOf use, class T>
Index factor_stride(const MatrixView<T>& x) {
  return is_factor<use>(x) ? 0 : rounded_stride(x.columns);
}

/// x as a factor: itself, or rounded to `to` with rounded_stride(), rows aligned to 16 bytes.
template <FactorOf use, class T>
MatrixView<const bfloat16> as_factor(Device& device, MatrixView<T> x, bfloat16* to) {
  using C = std::remove_const_t<T>;
  if constexpr (std::is_same_v<C, bfloat16>) {
    if (is_factor<use>(x)) return x;
  }
  const MatrixView<bfloat16> y{to, x.rows, x.columns, rounded_stride(x.columns)};
  const Index vectors = ceiling_divide<Index>(x.columns, 8);
  if constexpr (std::is_same_v<C, float>) {
    if (can_vectorise<8>(x)) {
      for_elements(device, {x.rows}, vectors, RoundVector<true, C>{x, y});
      return y;
    }
  }
  for_elements(device, {x.rows}, vectors, RoundVector<false, C>{x, y});
  return y;
}

/// Rows of `stride` elements of bfloat16 in all that fit into the scratch memory at a time, but for its last `reserved`
/// bytes; of none, as many as a product takes.
inline Index most_rounded_rows(Index stride, Index reserved = 0) {
  if (stride == 0) return Index{1} << 30;  // copies of boxes count rows in 31 bits
  const Index room = (Index(Device::scratch_bytes) - reserved) / Index(sizeof(bfloat16)) / stride;
  require(room >= 1, "columns", stride, "as many as the device's scratch memory takes, 2^24 at least");
  return room >= 128 ? room / 128 * 128 : room;
}

/// each(first, rows of x from `first` on as a factor) for all rows, as many at a time as fit into the scratch memory.
template <FactorOf use, class T, class Each>
void for_factor_rows(Device& device, MatrixView<T> x, const Each& each) {
  const Index most = most_rounded_rows(factor_stride<use>(x));
  for (Index first = 0; first < x.rows; first += most) {
    const Index rows = std::min(most, x.rows - first);
    each(first, as_factor<use>(device, x.row_block(first, rows), reinterpret_cast<bfloat16*>(device.scratch())));
    if (rows == x.rows - first) break;
  }
}

/// each(first, rows of a, rows of b), the same for two matrices of as many rows; leaves the last `reserved` bytes of
/// the scratch memory alone.
template <FactorOf use, class A, class B, class Each>
void for_factor_rows(Device& device, MatrixView<A> a, MatrixView<B> b, Index reserved, const Each& each) {
  const Index a_stride = factor_stride<use>(a);
  const Index most = most_rounded_rows(a_stride + factor_stride<use>(b), reserved);
  auto* const scratch = reinterpret_cast<bfloat16*>(device.scratch());
  for (Index first = 0; first < a.rows; first += most) {
    const Index rows = std::min(most, a.rows - first);
    const auto a_rows = as_factor<use>(device, a.row_block(first, rows), scratch);
    const auto b_rows = as_factor<use>(device, b.row_block(first, rows), scratch + rows * a_stride);
    each(first, a_rows, b_rows);
    if (rows == a.rows - first) break;
  }
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
