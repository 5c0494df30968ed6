#pragma once

#include <algorithm>

#include "moe_mamba/cpu/gemm.hpp"
#include "moe_mamba/cpu/packet.hpp"

/// The product of a few rows with a transposed matrix, without a copy of the matrix: for each of its rows the dot
/// products with all rows of A. The matrix is read once, from front to back as one stream, which is what a machine
/// reads fastest.
namespace moe_mamba::cpu {

/// Most rows for which this is at least as fast as the blocked product. Measured on a Zen 3 core with matrices of 3072
/// x 768 in float and bfloat16, from memory and from the third-level cache: even at 6 to 8 rows where the matrix is
/// cached, faster up to 8 to 12 where it comes from memory.
inline constexpr Index few_rows = 6;

namespace detail {

/// y[i * y_stride] = the dot product of row i of x with w, for Rows rows. Four sums for each, so that enough
/// independent ones are under way even for a single row.
template <int Rows, class C, class S>
[[gnu::always_inline]] inline void dot_rows(const C* x, Index x_stride, const S* w, Index inner, C* y, Index y_stride) {
  using P = Packet<C>;
  constexpr Index width = lanes<P>;
  constexpr int sums = 4;
  P sum[Rows][sums];
  unroll<Rows * sums>([&](auto i) __attribute__((always_inline)) { sum[i / sums][i % sums] = zero<P>(); });
  Index k = 0;
  for (; k + sums * width <= inner; k += sums * width) {
    unroll<sums>([&](auto s) __attribute__((always_inline)) {
      const P w_k = load_widened<P>(w + k + s * width);
      unroll<Rows>([&](auto i) __attribute__((always_inline)) {
        sum[i][s] = fma(load<P>(x + i * x_stride + k + s * width), w_k, sum[i][s]);
      });
    });
  }
  for (; k + width <= inner; k += width) {
    const P w_k = load_widened<P>(w + k);
    unroll<Rows>([&](auto i) __attribute__((always_inline)) {
      sum[i][0] = fma(load<P>(x + i * x_stride + k), w_k, sum[i][0]);
    });
  }
  if (k < inner) {
    const P w_k = load_widened_partial<P>(w + k, inner - k);
    unroll<Rows>([&](auto i) __attribute__((always_inline)) {
      sum[i][0] = fma(load_partial<P>(x + i * x_stride + k, inner - k), w_k, sum[i][0]);
    });
  }
  unroll<Rows>([&](auto i) __attribute__((always_inline)) {
    y[i * y_stride] = horizontal_sum(add(add(sum[i][0], sum[i][1]), add(sum[i][2], sum[i][3])));
  });
}

}  // namespace detail

/// Computes the given rows (any number; few are fast) and columns of a product that assigns and whose B is contiguous
/// along the inner dimension. The bits of an element depend on its own row and column alone.
template <class C, class S>
void gemv_block(const Product<C, S>& product, Range rows, Range columns) {
  for (Index column = columns.first; column < columns.last; ++column) {
    const S* const w = product.b + column * product.b_stride;
    for (Index row = rows.first; row < rows.last;) {
      const C* const x = product.a + row * product.a_stride;
      C* const y = product.c + row * product.c_stride + column;
      const Index left = rows.last - row;
      if (left >= 3) {
        detail::dot_rows<3>(x, product.a_stride, w, product.inner, y, product.c_stride);
        row += 3;
      } else if (left == 2) {
        detail::dot_rows<2>(x, product.a_stride, w, product.inner, y, product.c_stride);
        row += 2;
      } else {
        detail::dot_rows<1>(x, product.a_stride, w, product.inner, y, product.c_stride);
        row += 1;
      }
    }
  }
}

}  // namespace moe_mamba::cpu
