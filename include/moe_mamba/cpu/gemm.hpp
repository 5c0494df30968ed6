#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cpu/device.hpp"
#include "moe_mamba/cpu/packet_access.hpp"
#include "moe_mamba/cpu/packet_shuffle.hpp"

/// The blocked matrix product, C = A B or C += A B, in the caller's memory and a thread's scratch.
///
/// The innermost loop holds a tile of C in registers while it walks along the inner dimension: a broadcast element of
/// A times packets of a row of B, for each row of the tile. B is copied (and widened) beforehand into panels as wide as
/// a tile, in the order in which they are read. A is read in place if its rows are contiguous along the inner
/// dimension, else it is copied into strips as high as a tile. The scheme is that of Goto and van de Geijn ("Anatomy of
/// high-performance matrix multiplication", 2008) without the copy of A.
///
/// Each element of C is summed first to last within each block of the inner dimension, and then over the blocks, first
/// to last. The blocks depend on the inner size alone and an edge tile does the same arithmetic as an interior one, so
/// the bits of a row depend neither on the other rows nor on the division into tasks.
namespace moe_mamba::inline v0_2::cpu {

/// Block sizes.
template <ComputeScalar C>
struct GemmBlocks {
  /// Width in packets and height in rows of a tile: 12 of 16 registers or 24 of 32 hold sums, the others a row of B and
  /// a broadcast element of A (and, without fused multiply-add, a product, hence the smaller tile).
  static constexpr int packets = vector_registers >= 32 ? 3 : 2;
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  static constexpr int rows = vector_registers >= 32 ? 8 : 6;
#else
  static constexpr int rows = 4;
#endif
  /// Height of the tile for the last rows.
  static constexpr int low_rows = rows > 4 ? 4 : 2;
  /// Columns of a tile.
  static constexpr Index columns = packets * lanes<Packet<C>>;
  /// Longest block of the inner dimension: a panel of B, 16 KiB with 256-bit vectors, stays in the L1 cache.
  static constexpr Index inner = 256;
  /// Rows of A per block: 96 KiB (float), which stay in the L2 cache.
  static constexpr Index row_block = 96 / rows * rows;
  /// Elements of packed panels per block: 256 KiB, which stay in the L2 cache. Halving or doubling these two numbers
  /// makes no difference on a Zen 3 core with 512 KiB of L2.
  static constexpr Index panel_elements = (Index{256} << 10) / Index{sizeof(C)};

  /// The number of blocks of an inner dimension, and their length (the last one may be shorter).
  static constexpr Index passes(Index size) { return std::max<Index>(1, (size + inner - 1) / inner); }
  static constexpr Index pass_length(Index size) { return (size + passes(size) - 1) / passes(size); }
  /// The largest number of columns whose panels are held at a time.
  static constexpr Index column_block(Index size) {
    return panel_elements / std::max<Index>(1, pass_length(size)) / columns * columns;
  }
  /// Elements of the panels of `count` columns, `length` rows long.
  static constexpr Index panels(Index count, Index length) { return ceiling_divide(count, columns) * columns * length; }
};

/// The dimension along which an operand is contiguous: the inner one or its outer one.
enum class Along { inner, outer };

/// c = a b or c += a b with a (rows, inner), b (inner, columns) and c (rows, columns). Strides are those of the
/// dimension that is not contiguous; c is contiguous along its columns.
template <ComputeScalar C, StorageScalar S>
struct Product {
  const C* a = nullptr;
  Index a_stride = 0;
  const S* b = nullptr;
  Index b_stride = 0;
  C* c = nullptr;
  Index c_stride = 0;
  Index rows = 0;
  Index columns = 0;
  Index inner = 0;
  bool accumulate = false;
};

/// The indices from first up to, but not including, last.
struct Range {
  Index first = 0;
  Index last = 0;
};

namespace detail {

/// One tile of C, of at most Rows rows and a panel's columns. Element k of row i of A is a[i * row_stride + k * step].
/// Rows and columns beyond the matrix are computed from arbitrary values and not stored.
template <int Rows, int step, class C>
[[gnu::noinline]] void gemm_tile(Index inner, const C* a, Index row_stride, const C* panel, C* c, Index c_stride,
                                 Index rows, Index columns, bool accumulate) {
  using P = Packet<C>;
  constexpr int packets = GemmBlocks<C>::packets;
  constexpr Index width = lanes<P>;
  unroll<Rows>([&](auto i) { __builtin_prefetch(c + std::min<Index>(i, rows - 1) * c_stride); });
  const C* a_row[array_size<Rows>];
  unroll<Rows>([&](auto i) { a_row[i] = a + std::min<Index>(i, rows - 1) * row_stride; });
  P sum[array_size<Rows>][array_size<packets>];
  unroll<Rows * packets>([&](auto i) { sum[i / packets][i % packets] = P(0); });
  // Not unrolled: g++ 12 would then read the packets of B from memory once for each row.
  for (Index k = 0; k < inner; ++k) {
    P b[array_size<packets>];
    unroll<packets>([&](auto j) { b[j] = load<P>(panel + j * width); });
    panel += packets * width;
    unroll<Rows>([&](auto i) {
      const P a_ik = a_row[i][k * step];
      unroll<packets>([&](auto j) { sum[i][j] = fma(a_ik, b[j], sum[i][j]); });
    });
  }
  if (columns == packets * width) {
    unroll<Rows>([&](auto i) {
      if (i >= rows) return;
      C* const to = c + i * c_stride;
      unroll<packets>(
          [&](auto j) { store(to + j * width, accumulate ? load<P>(to + j * width) + sum[i][j] : sum[i][j]); });
    });
    return;
  }
  alignas(64) C buffer[array_size<Rows>][array_size<packets * width>];
  unroll<Rows * packets>(
      [&](auto i) { store(buffer[i / packets] + i % packets * width, sum[i / packets][i % packets]); });
  for (Index i = 0; i < rows; ++i) {
    C* const to = c + i * c_stride;
    for (Index j = 0; j < columns; ++j) to[j] = accumulate ? to[j] + buffer[i][j] : buffer[i][j];
  }
}

/// Copies a panel of B, which is contiguous along the inner dimension, from its first column on. Columns beyond the
/// last one are filled with zeros. The next packets of columns are prefetched: a segment along the inner dimension is
/// too short for the hardware prefetcher.
template <class C, class S>
[[gnu::flatten]] void pack_along_inner(const S* b, Index column_stride, Index inner, Index columns_left, C* panel) {
  using P = Packet<C>;
  constexpr Index width = lanes<P>, panel_width = GemmBlocks<C>::columns;
  for (Index first = 0; first < panel_width; first += width) {
    const Index here = std::clamp<Index>(columns_left - first, 0, width);
    const S* const from = b + first * column_stride;
    const Index ahead = columns_left - first >= 2 * width ? width * column_stride : 0;
    C* const to = panel + first;
    Index k = 0;
    if (here == width) {
      for (; k + width <= inner; k += width) {
        P square[array_size<width>];
        unroll<width>([&](auto i) {
          square[i] = load_widened<P>(from + i * column_stride + k);
          __builtin_prefetch(from + i * column_stride + k + ahead);
        });
        transpose(square);
        unroll<width>([&](auto i) { store(to + (k + i) * panel_width, square[i]); });
      }
    }
    for (; k < inner; ++k) {
      for (Index j = 0; j < width; ++j) {
        to[k * panel_width + j] = j < here ? static_cast<C>(from[j * column_stride + k]) : C(0);
      }
    }
  }
}

/// Copies panels of `columns` columns of B, which is contiguous along its columns, a row of B at a time.
template <class C, class S>
void pack_along_columns(const S* b, Index inner_stride, Index inner, Index columns, C* panels) {
  using P = Packet<C>;
  constexpr Index width = lanes<P>, panel_width = GemmBlocks<C>::columns;
  constexpr Index rows_ahead = 4, line = 64 / Index{sizeof(S)};
  for (Index k = 0; k < inner; ++k) {
    const S* const from = b + k * inner_stride;
    const Index ahead = k + rows_ahead < inner ? rows_ahead * inner_stride : 0;
    for (Index j = 0; j < columns; j += line) __builtin_prefetch(from + j + ahead);
    C* to = panels + k * panel_width;
    Index column = 0;
    for (; column + panel_width <= columns; column += panel_width, to += inner * panel_width) {
      unroll<GemmBlocks<C>::packets>(
          [&](auto j) { store(to + j * width, load_widened<P>(from + column + j * width)); });
    }
    if (column < columns) {
      for (Index j = 0; j < panel_width; ++j) to[j] = column + j < columns ? static_cast<C>(from[column + j]) : C(0);
    }
  }
}

/// Copies strips of `rows` rows of A, which is contiguous along its rows: within a strip, the elements k of all its
/// rows are adjacent.
template <class C>
void pack_strips(const C* a, Index inner_stride, Index inner, Index rows, C* strips) {
  constexpr Index height = GemmBlocks<C>::rows;
  for (Index k = 0; k < inner; ++k) {
    const C* const from = a + k * inner_stride;
    C* to = strips + k * height;
    Index row = 0;
    for (; row + height <= rows; row += height, to += inner * height) std::memcpy(to, from + row, height * sizeof(C));
    for (Index i = row; i < rows; ++i) to[i - row] = from[i];
  }
}

/// One block of a product: as gemm_block, for columns whose panels fit in the scratch.
template <Along a_along, Along b_along, class C, class S>
void gemm_columns(const Product<C, S>& product, Range rows, Range columns, C* panels) {
  using Blocks = GemmBlocks<C>;
  const Index length = Blocks::pass_length(product.inner);
  C* const strips = panels + Blocks::panels(columns.last - columns.first, length);
  for (Index pass = 0; pass < Blocks::passes(product.inner); ++pass) {
    const Index first = std::min(pass * length, product.inner);
    const Index inner = std::min(length, product.inner - first);
    const auto panel = [&](Index column) { return panels + (column - columns.first) * inner; };
    const auto tile = [&](Index i, Index height, const C* a, Index row_stride, Index column) {
      constexpr int step = a_along == Along::inner ? 1 : Blocks::rows;
      const auto compute =
          height > Blocks::low_rows ? gemm_tile<Blocks::rows, step, C> : gemm_tile<Blocks::low_rows, step, C>;
      compute(inner, a, row_stride, panel(column), product.c + i * product.c_stride + column, product.c_stride, height,
              std::min(Blocks::columns, columns.last - column), product.accumulate || pass > 0);
    };
    if constexpr (b_along == Along::outer) {
      pack_along_columns(product.b + first * product.b_stride + columns.first, product.b_stride, inner,
                         columns.last - columns.first, panels);
    }
    if constexpr (a_along == Along::outer) {
      for (Index row = rows.first; row < rows.last; row += Blocks::row_block) {
        const Index count = std::min(Blocks::row_block, rows.last - row);
        pack_strips(product.a + first * product.a_stride + row, product.a_stride, inner, count, strips);
        // Strip by strip, to traverse C along its rows: with a short inner dimension most of the memory traffic is C's.
        for (Index i = 0; i < count; i += Blocks::rows) {
          for (Index column = columns.first; column < columns.last; column += Blocks::columns) {
            tile(row + i, std::min<Index>(Blocks::rows, count - i), strips + i * inner, 1, column);
          }
        }
      }
    } else {
      for (Index row = rows.first; row < rows.last; row += Blocks::row_block) {
        const Index row_end = std::min(row + Blocks::row_block, rows.last);
        for (Index column = columns.first; column < columns.last; column += Blocks::columns) {
          if (b_along == Along::inner && row == rows.first) {
            pack_along_inner(product.b + column * product.b_stride + first, product.b_stride, inner,
                             product.columns - column, panel(column));
          }
          for (Index i = row; i < row_end; i += Blocks::rows) {
            tile(i, std::min<Index>(Blocks::rows, row_end - i), product.a + i * product.a_stride + first,
                 product.a_stride, column);
          }
        }
      }
    }
  }
}

}  // namespace detail

/// Upper bound on the scratch of gemm_block in bytes per thread, for products of up to these sizes.
template <Along a_along, Along b_along, ComputeScalar C>
constexpr std::size_t gemm_scratch(Index rows, Index columns, Index inner) {
  using Blocks = GemmBlocks<C>;
  const Index length = std::min(inner, Blocks::inner);
  const bool one_panel = b_along == Along::inner && rows <= Blocks::row_block;
  const Index panels = std::min(Blocks::panel_elements, Blocks::panels(one_panel ? 1 : columns, length));
  const Index height = ceiling_divide(std::min(rows, Blocks::row_block), Index{Blocks::rows}) * Blocks::rows;
  const Index strips = a_along == Along::outer ? height * length : 0;
  return static_cast<std::size_t>(panels + strips) * sizeof(C);
}

/// Computes the given rows and columns of a product. `scratch` is the thread's, of gemm_scratch() bytes.
template <Along a_along, Along b_along, class C, class S>
void gemm_block(const Product<C, S>& product, Range rows, Range columns, std::byte* scratch) {
  using Blocks = GemmBlocks<C>;
  static_assert((Blocks::panel_elements + Blocks::row_block * Blocks::inner) * sizeof(C) <=
                Device::thread_scratch_bytes);
  // With few rows most of the memory traffic is B's: taking one panel at a time through the whole inner dimension
  // streams a B that is contiguous along it.
  const bool one_panel = b_along == Along::inner && rows.last - rows.first <= Blocks::row_block;
  const Index block = one_panel ? Blocks::columns : Blocks::column_block(product.inner);
  for (Index column = columns.first; column < columns.last; column += block) {
    detail::gemm_columns<a_along, b_along>(product, rows, {column, std::min(column + block, columns.last)},
                                           reinterpret_cast<C*>(scratch));
  }
}

}  // namespace moe_mamba::inline v0_2::cpu
