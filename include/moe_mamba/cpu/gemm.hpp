#pragma once

#include <algorithm>
#include <cstddef>

#include "moe_mamba/cpu/device.hpp"
#include "moe_mamba/cpu/packet.hpp"

/// The blocked matrix product, C = A B or C += A B, in the caller's memory and a thread's scratch.
///
/// The innermost piece holds a tile of C in registers while it walks along the inner dimension: a broadcast element of
/// A times packets of a row of B, for each row of the tile. B is copied (and widened) beforehand into panels as wide as
/// a tile, in the order in which they are read. A is read where it lies if its rows are contiguous along the inner
/// dimension, else it is copied into strips as high as a tile. The scheme is that of Goto and van de Geijn ("Anatomy of
/// high-performance matrix multiplication", 2008) without the copy of A.
///
/// Each element of C is a sum over blocks of the inner dimension, first to last, of sums over the elements of a block,
/// first to last. The blocks depend on the inner size alone and a tile at an edge does the same arithmetic as one
/// inside, so neither the other rows nor the cut into tasks shows in the bits of a row.
namespace moe_mamba::cpu {

/// Sizes of the blocks.
template <ComputeScalar C>
struct GemmBlocks {
  /// Packets across and rows down a tile: 12 of 16 registers or 24 of 32 hold sums, the others a row of B and a
  /// broadcast of A (without fused multiply-add also a product, so there the tile is smaller).
  static constexpr int packets = vector_registers >= 32 ? 3 : 2;
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  static constexpr int rows = vector_registers >= 32 ? 8 : 6;
#else
  static constexpr int rows = 4;
#endif
  /// A lower tile for the last rows.
  static constexpr int low_rows = rows > 4 ? 4 : 2;
  /// Columns of a tile.
  static constexpr Index columns = packets * lanes<Packet<C>>;
  /// Longest block of the inner dimension: a panel of B stays in a first-level cache, 16 KiB with vectors of 256 bits.
  static constexpr Index inner = 256;
  /// Columns and rows worked on at a time: packed panels of 256 KiB and rows of A of 96 KiB (float) stay in a
  /// second-level cache. Between half and twice these numbers make no difference on a Zen 3 core with 512 KiB.
  static constexpr Index column_block = (Index{256} << 10) / (inner * Index{sizeof(C)}) / columns * columns;
  static constexpr Index row_block = 96 / rows * rows;
};

/// Which of its two dimensions an operand is contiguous along: the inner one or its other one.
enum class Along { inner, outer };

/// c (rows, columns) = or += a (rows, inner) b (inner, columns). The strides are those of the dimension that is not
/// contiguous; c is contiguous along its columns.
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
/// Rows and columns that are missing are computed from something and not stored.
template <int Rows, int step, class C>
[[gnu::noinline]] void gemm_tile(Index inner, const C* a, Index row_stride, const C* panel, C* c, Index c_stride,
                                 Index rows, Index columns, bool accumulate) {
  using P = Packet<C>;
  constexpr int packets = GemmBlocks<C>::packets;
  constexpr Index width = lanes<P>;
  const C* a_row[Rows];
  unroll<Rows>([&](auto i)
                   __attribute__((always_inline)) { a_row[i] = a + std::min<Index>(i, rows - 1) * row_stride; });
  P sum[Rows][packets];
  unroll<Rows * packets>([&](auto i) __attribute__((always_inline)) { sum[i / packets][i % packets] = zero<P>(); });
  // Not unrolled: g++ 12 would then read the packets of B from memory once for each row.
  for (Index k = 0; k < inner; ++k) {
    P b[packets];
    unroll<packets>([&](auto j) __attribute__((always_inline)) { b[j] = load<P>(panel + j * width); });
    panel += packets * width;
    unroll<Rows>([&](auto i) __attribute__((always_inline)) {
      const P a_ik = broadcast<P>(a_row[i][k * step]);
      unroll<packets>([&](auto j) __attribute__((always_inline)) { sum[i][j] = fma(a_ik, b[j], sum[i][j]); });
    });
  }
  if (columns == packets * width) {
    unroll<Rows>([&](auto i) __attribute__((always_inline)) {
      if (i >= rows) return;
      C* const to = c + i * c_stride;
      unroll<packets>([&](auto j) __attribute__((always_inline)) {
        store<P>(to + j * width, accumulate ? add(load<P>(to + j * width), sum[i][j]) : sum[i][j]);
      });
    });
    return;
  }
  alignas(64) C buffer[Rows][packets * width];
  unroll<Rows * packets>([&](auto i) __attribute__((always_inline)) {
    store<P>(buffer[i / packets] + i % packets * width, sum[i / packets][i % packets]);
  });
  for (Index i = 0; i < rows; ++i) {
    C* const to = c + i * c_stride;
    for (Index j = 0; j < columns; ++j) to[j] = accumulate ? to[j] + buffer[i][j] : buffer[i][j];
  }
}

/// Copies a panel of B, which is contiguous along the inner dimension, from its first column on. Where less than a
/// panel's columns are left, zeros stand for the others. What the next packets of columns need is fetched ahead: a run
/// along the inner dimension is too short for the machine to see it coming.
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
        P square[width];
        unroll<width>([&](auto i) __attribute__((always_inline)) {
          square[i] = load_widened<P>(from + i * column_stride + k);
          __builtin_prefetch(from + i * column_stride + k + ahead);
        });
        transpose(square);
        unroll<width>([&](auto i) __attribute__((always_inline)) { store<P>(to + (k + i) * panel_width, square[i]); });
      }
    }
    for (; k < inner; ++k) {
      for (Index j = 0; j < width; ++j) {
        to[k * panel_width + j] = j < here ? static_cast<C>(from[j * column_stride + k]) : C(0);
      }
    }
  }
}

/// The same for a B that is contiguous along its columns.
template <class C, class S>
void pack_along_columns(const S* b, Index inner_stride, Index inner, Index columns_left, C* panel) {
  using P = Packet<C>;
  constexpr Index width = lanes<P>, panel_width = GemmBlocks<C>::columns;
  if (columns_left >= panel_width) {
    for (Index k = 0; k < inner; ++k) {
      unroll<GemmBlocks<C>::packets>([&](auto j) __attribute__((always_inline)) {
        store<P>(panel + k * panel_width + j * width, load_widened<P>(b + k * inner_stride + j * width));
      });
    }
    return;
  }
  for (Index k = 0; k < inner; ++k) {
    for (Index j = 0; j < panel_width; ++j) {
      panel[k * panel_width + j] = j < columns_left ? static_cast<C>(b[k * inner_stride + j]) : C(0);
    }
  }
}

/// Copies a strip of A, which is contiguous along its rows, element k of all its rows together.
template <class C>
void pack_strip(const C* a, Index inner_stride, Index inner, Index rows, C* strip) {
  constexpr int height = GemmBlocks<C>::rows;
  if (rows == height) {
    for (Index k = 0; k < inner; ++k) {
      unroll<height>([&](auto i) __attribute__((always_inline)) { strip[k * height + i] = a[k * inner_stride + i]; });
    }
    return;
  }
  for (Index k = 0; k < inner; ++k) {
    for (Index i = 0; i < rows; ++i) strip[k * height + i] = a[k * inner_stride + i];
  }
}

}  // namespace detail

/// Computes the given rows of at most GemmBlocks<C>::column_block columns of a product. `scratch` is the thread's.
template <Along a_along, Along b_along, class C, class S>
void gemm_block(const Product<C, S>& product, Range rows, Range columns, std::byte* scratch) {
  using Blocks = GemmBlocks<C>;
  static_assert((Blocks::column_block + Blocks::row_block) * Blocks::inner * sizeof(C) <= Device::scratch_bytes);
  C* const panels = reinterpret_cast<C*>(scratch);
  C* const strips = panels + Blocks::column_block * Blocks::inner;
  const Index passes = std::max<Index>(1, (product.inner + Blocks::inner - 1) / Blocks::inner);
  const Index pass_size = (product.inner + passes - 1) / passes;
  for (Index pass = 0; pass < passes; ++pass) {
    const Index first = std::min(pass * pass_size, product.inner);
    const Index inner = std::min(pass_size, product.inner - first);
    const bool accumulate = product.accumulate || pass > 0;
    for (Index row = rows.first; row < rows.last; row += Blocks::row_block) {
      const Index row_end = std::min(row + Blocks::row_block, rows.last);
      if constexpr (a_along == Along::outer) {
        for (Index i = row; i < row_end; i += Blocks::rows) {
          detail::pack_strip(product.a + first * product.a_stride + i, product.a_stride, inner,
                             std::min<Index>(Blocks::rows, row_end - i), strips + (i - row) * inner);
        }
      }
      for (Index column = columns.first; column < columns.last; column += Blocks::columns) {
        C* const panel = panels + (column - columns.first) * inner;
        if (row == rows.first) {
          if constexpr (b_along == Along::inner) {
            detail::pack_along_inner(product.b + column * product.b_stride + first, product.b_stride, inner,
                                     product.columns - column, panel);
          } else {
            detail::pack_along_columns(product.b + first * product.b_stride + column, product.b_stride, inner,
                                       product.columns - column, panel);
          }
        }
        const Index width = std::min(Blocks::columns, columns.last - column);
        for (Index i = row; i < row_end; i += Blocks::rows) {
          const Index height = std::min<Index>(Blocks::rows, row_end - i);
          constexpr int step = a_along == Along::inner ? 1 : Blocks::rows;
          const C* const a =
              a_along == Along::inner ? product.a + i * product.a_stride + first : strips + (i - row) * inner;
          const Index row_stride = a_along == Along::inner ? product.a_stride : 1;
          C* const c = product.c + i * product.c_stride + column;
          if (height > Blocks::low_rows) {
            detail::gemm_tile<Blocks::rows, step>(inner, a, row_stride, panel, c, product.c_stride, height, width,
                                                  accumulate);
          } else {
            detail::gemm_tile<Blocks::low_rows, step>(inner, a, row_stride, panel, c, product.c_stride, height, width,
                                                      accumulate);
          }
        }
      }
    }
  }
}

}  // namespace moe_mamba::cpu
