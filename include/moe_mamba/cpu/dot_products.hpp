#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <type_traits>

#include "moe_mamba/cpu/chunks.hpp"
#include "moe_mamba/cpu/gemm.hpp"
#include "moe_mamba/cpu/packet_access.hpp"
#include "moe_mamba/cpu/packet_shuffle.hpp"

/// The product of a few rows with a transposed matrix, without packing the matrix: a register tile of dot products,
/// each a packet of partial sums whose lanes are added up at the end. The matrix is streamed once, a few of its rows at
/// a time. Used for an expert's share of a batch, a chunk of a prompt and a decoding step, where packing would cost as
/// much as the product itself.
///
/// An element's arithmetic is the same in every tile, so its bits depend on its own row and column alone.
namespace moe_mamba::inline v0_2::cpu {

/// The largest number of rows for which this replaces the blocked product. Measured with matrices of 512 x 1536 and
/// 1536 x 512 in float and bfloat16, from memory and cached, on an AVX-512 machine: 0.57 to 0.8 of the blocked
/// product's time at 16 rows, 0.84 to 1 at 32, the same at 48. With AVX2's 16 registers: 0.75 to 0.9 at 8 rows, 0.9 to
/// 1.2 at 16.
inline constexpr Index few_rows = vector_registers >= 32 ? 32 : 12;

/// Whether there are so few rows that dot products are faster. Short ones are dominated by the sums over lanes: with
/// 128 elements they pay off up to 12 rows, with 32 up to 3 (AVX-512); a single row always pays off.
template <ComputeScalar C>
constexpr bool are_few_rows(Index rows, Index inner) {
  return rows <= 1 || (rows <= few_rows && 2 * rows * lanes<Packet<C>> <= 3 * inner);
}

namespace detail {

/// Rows of the largest tile, which has four columns: 12 of 16 registers or 24 of 32 hold sums. A single row, where each
/// weight is used once, takes eight columns, enough independent sums to hide the latency of an addition.
inline constexpr int dot_tile_rows = vector_registers >= 32 ? 6 : 3;

/// The rows of B that follow those of a tile, to be prefetched. The tiles of the same columns take equal shares, which
/// keeps the memory busy throughout, and each goes through its share from front to back, which suits the hardware
/// prefetcher.
template <class S>
struct Prefetched {
  const S* rows;
  Index elements;
  int tile, tiles;
};

/// c[i, j] = the dot product of row i of a with row j of b. Only `columns` of the tile's columns exist; the others are
/// computed from an existing one and not stored.
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
    if (columns == Columns) {  // of constant size, so inlined
      std::memcpy(c + i * c_stride, sums + i * Columns, Columns * sizeof(C));
    } else {
      for (Index j = 0; j < columns; ++j) c[i * c_stride + j] = sums[i * Columns + j];
    }
  }
}

/// Covers the given rows with tiles of Rows rows and then lower ones, for the columns whose rows of B are at b.
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

/// Bytes of the widened rows of B for a tile's columns; 0 if they exceed a thread's scratch and are therefore widened
/// at each use.
template <int Columns, ComputeScalar C>
constexpr std::size_t widened_bytes(Index inner) {
  const std::size_t bytes = Columns * static_cast<std::size_t>(inner) * sizeof(C);
  return bytes <= Device::thread_scratch_bytes ? bytes : 0;
}

/// All rows for a few columns, then for the next few. Rows of B that several tiles use are widened once.
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

/// Upper bound on the scratch of dot_products in bytes per thread, for up to `rows` rows; none is used if B is of type
/// C.
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
