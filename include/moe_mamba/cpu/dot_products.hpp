#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <type_traits>

#include "moe_mamba/cpu/chunks.hpp"
#include "moe_mamba/cpu/gemm.hpp"
#include "moe_mamba/cpu/packet_access.hpp"
#include "moe_mamba/cpu/packet_shuffle.hpp"

/// The product of some rows with a transposed matrix, without a packed copy of the matrix: a tile of dot products in
/// registers, each a packet of partial sums, whose lanes are added up at the end. The matrix is read once, from front to
/// back, a few of its rows at a time. It serves an expert's share of a batch, a chunk of a prompt and a step of a decoder,
/// for which packing would cost as much as multiplying.
///
/// The arithmetic of an element is the same in every tile, so its bits depend on its own row and column alone.
namespace moe_mamba::inline v0_2::cpu {

/// Most rows for which this is taken instead of the blocked product. Measured with matrices of 512 x 1536 and 1536 x 512
/// in float and bfloat16, from memory and cached, on an AVX-512 machine: 0.57 to 0.8 of the blocked product's time at 16
/// rows, 0.84 to 1 at 32, the same at 48. With AVX2's 16 registers: 0.75 to 0.9 at 8 rows, 0.9 to 1.2 at 16.
inline constexpr Index few_rows = vector_registers >= 32 ? 32 : 12;

/// Whether so few rows are multiplied that dot products are faster. Short ones are mostly adding up of lanes: 128 elements
/// pay up to 12 rows, 32 up to 3 (AVX-512); a single row always pays.
template <ComputeScalar C>
constexpr bool are_few_rows(Index rows, Index inner) {
  return rows <= 1 || (rows <= few_rows && 2 * rows * lanes<Packet<C>> <= 3 * inner);
}

namespace detail {

/// Most rows of a tile, of four columns: twelve of 16 registers or 24 of 32 hold sums. One row alone, where each weight
/// is used once, takes eight columns, as many as hide the time of an addition.
inline constexpr int dot_tile_rows = vector_registers >= 32 ? 6 : 3;

/// The rows of B after those of a tile, to be prefetched. The tiles of the same columns take equal shares, so that memory
/// is busy all the time; and each goes through its share from front to back, as the hardware prefetcher likes it.
template <class S>
struct Prefetched {
  const S* rows;
  Index elements;
  int tile, tiles;
};

/// c[i, j] = the dot product of row i of a with row j of b. Of the tile's columns `columns` exist; the others are
/// computed from one that does and not stored.
template <int Rows, int Columns, class C, class T, class S>
[[gnu::noinline]] void dot_tile(const C* a, Index a_stride, const T* b, Index b_stride, Prefetched<S> prefetched,
                                Index inner, C* c, Index c_stride, Index columns) {
  using P = Packet<C>;
  constexpr int width = static_cast<int>(lanes<P>);
  const T* b_row[array_size<Columns>];
  unroll<Columns>([&](auto j) { b_row[j] = b + std::min<Index>(j, columns - 1) * b_stride; });
  const Index spacing = width / prefetched.tiles;
  const S* next = prefetched.rows + prefetched.elements / prefetched.tiles * prefetched.tile;
  P sum[array_size<Rows>][array_size<Columns>];
  unroll<Rows * Columns>([&](auto i) { sum[i / Columns][i % Columns] = P(0); });
  Index k = 0;
  for (; k + width <= inner; k += width) {
    P a_k[array_size<Rows>];
    unroll<Rows>([&](auto i) { a_k[i] = load<P>(a + i * a_stride + k); });
    unroll<Columns>([&](auto j) {
      const P b_k = load_widened<P>(b_row[j] + k);
      __builtin_prefetch(next + j * spacing);
      unroll<Rows>([&](auto i) { sum[i][j] = fma(a_k[i], b_k, sum[i][j]); });
    });
    next += Columns * spacing;
  }
  if (k < inner) {
    P a_k[array_size<Rows>];
    unroll<Rows>([&](auto i) { a_k[i] = load_partial<P>(a + i * a_stride + k, inner - k); });
    unroll<Columns>([&](auto j) {
      const P b_k = load_widened_partial<P>(b_row[j] + k, inner - k);
      unroll<Rows>([&](auto i) { sum[i][j] = fma(a_k[i], b_k, sum[i][j]); });
    });
  }
  constexpr int elements = Rows * Columns, groups = (elements + width - 1) / width;
  alignas(64) C sums[array_size<groups * width>];
  unroll<groups>([&](auto group) {
    P packets[array_size<width>];
    unroll<width>([&](auto lane) {
      constexpr int element = group * width + lane;
      if constexpr (element < elements) {
        packets[lane] = sum[element / Columns][element % Columns];
      } else {
        packets[lane] = P(0);
      }
    });
    store(sums + group * width, sums_over_lanes(packets));
  });
  for (Index i = 0; i < Rows; ++i) {
    if (columns == Columns) {  // of a size that is known, so that it is no call
      std::memcpy(c + i * c_stride, sums + i * Columns, Columns * sizeof(C));
    } else {
      for (Index j = 0; j < columns; ++j) c[i * c_stride + j] = sums[i * Columns + j];
    }
  }
}

/// Tiles of Rows rows down the given ones, then lower ones, over the columns whose rows of B lie at b.
template <int Rows, int Columns, class C, class T, class S>
void dot_rows(const Product<C, S>& product, Range rows, Index column, Index columns, const T* b, Index b_stride,
              Prefetched<S> prefetched) {
  for (; rows.first + Rows <= rows.last; rows.first += Rows, ++prefetched.tile) {
    dot_tile<Rows, Columns>(product.a + rows.first * product.a_stride, product.a_stride, b, b_stride, prefetched,
                            product.inner, product.c + rows.first * product.c_stride + column, product.c_stride,
                            columns);
  }
  if constexpr (Rows > 1) {
    if (rows.first < rows.last) dot_rows<Rows - 1, Columns>(product, rows, column, columns, b, b_stride, prefetched);
  }
}

/// Bytes of widened rows of B, as many as a tile has columns; 0 where they are more than a thread's scratch can be and are
/// widened wherever they are used.
template <int Columns, ComputeScalar C>
constexpr std::size_t widened_bytes(Index inner) {
  const std::size_t bytes = Columns * static_cast<std::size_t>(inner) * sizeof(C);
  return bytes <= Device::thread_scratch_bytes ? bytes : 0;
}

/// All rows over a few columns, then over the next few. Rows of B that are used by several tiles are widened once.
template <int Rows, int Columns, class C, class S>
void dot_columns(const Product<C, S>& product, Range rows, Range columns, C* scratch) {
  const Index tiles = (rows.last - rows.first + Rows - 1) / Rows, inner = product.inner;
  [[maybe_unused]] const bool widen = tiles > 1 && widened_bytes<Columns, C>(inner) > 0;
  for (Index column = columns.first; column < columns.last; column += Columns) {
    const S* const b = product.b + column * product.b_stride;
    const Index left = columns.last - column, here = std::min<Index>(Columns, left);
    const bool more = left >= 2 * Columns;
    const Prefetched<S> prefetched{more ? b + Columns * product.b_stride : b, Columns * product.b_stride, 0,
                                   static_cast<int>(tiles)};
    if constexpr (!std::is_same_v<C, S>) {
      if (widen) {
        for (Index j = 0; j < here; ++j) {
          const S* const from = b + j * product.b_stride;
          sweep<C>(inner, [=]<class P>(Index k) { store(scratch + j * inner + k, load_widened<P>(from + k)); });
        }
        dot_rows<Rows, Columns>(product, rows, column, here, static_cast<const C*>(scratch), inner, prefetched);
        continue;
      }
    }
    dot_rows<Rows, Columns>(product, rows, column, here, b, product.b_stride, prefetched);
  }
}

}  // namespace detail

/// Bytes of a thread's scratch that dot_products takes at most for up to so many rows; a B of type C takes none.
template <ComputeScalar C>
constexpr std::size_t dot_scratch(Index rows, Index inner) {
  return rows > detail::dot_tile_rows ? detail::widened_bytes<4, C>(inner) : 0;
}

/// Computes the given rows and columns of a product that assigns and whose B is contiguous along the inner dimension.
/// `scratch` is the thread's, of dot_scratch() bytes.
template <class C, class S>
void dot_products(const Product<C, S>& product, Range rows, Range columns, std::byte* scratch) {
  if (rows.last - rows.first == 1) {
    detail::dot_columns<1, 8>(product, rows, columns, reinterpret_cast<C*>(scratch));
  } else {
    detail::dot_columns<detail::dot_tile_rows, 4>(product, rows, columns, reinterpret_cast<C*>(scratch));
  }
}

}  // namespace moe_mamba::inline v0_2::cpu
