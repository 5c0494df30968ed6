#pragma once

#include <algorithm>
#include <cstddef>

#include "moe_mamba/cpu/chunks.hpp"
#include "moe_mamba/cpu/device.hpp"
#include "moe_mamba/cpu/exponential.hpp"
#include "moe_mamba/cpu/packet_access.hpp"
#include "moe_mamba/cpu/packet_shuffle.hpp"
#include "moe_mamba/ops/attention.hpp"

/// The building blocks of attention's passes on the CPU: products of blocks in a thread's scratch, copies of rows into
/// such blocks, and exponentials of rows of scores.
///
/// A block's rows are padded to whole packets, with zeros wherever a product reads the padding, so products need no
/// edge handling along their columns.
namespace moe_mamba::inline v0_2::cpu::detail {

template <ComputeScalar C>
struct AttentionBlocks {
  /// Width in packets and height in rows of a product's register tile: sums take 24 of 32 registers, or 12 of 16.
  static constexpr int packets = vector_registers >= 32 ? 4 : 2;
  static constexpr int rows = 6;
  /// Keys per block. The block and its transposed copy, 32 KiB each for float heads of width 64, stay in the L1 and L2
  /// caches while a block of queries is multiplied by them.
  static constexpr Index keys = 128;
  /// Rows per block of queries; a row is one head of one step.
  static constexpr Index queries = 96;
  /// Up to this many rows, keys are read in place: packing them would cost more than the product itself.
  static constexpr Index decode_rows = 8;
  /// Keys per task in that case. A step's keys are split, and the partial results of the splits are merged.
  static constexpr Index split_keys = 512;
};

template <class C>
constexpr Index padded_to_packets(Index size) {
  return ceiling_divide(size, lanes<Packet<C>>) * lanes<Packet<C>>;
}

/// Two operands in memory: element k of row i of A is a[i * a_row + k * a_step], row k of B lies at b + k * b_stride.
template <class C>
struct BlockProduct {
  const C* a;
  Index a_row, a_step;
  const C* b;
  Index b_stride;
  C* c;
  Index c_stride;
  bool accumulate;
};

/// One tile of C = A B or C += A B. Rows past the edge are computed from an existing row and not stored.
template <int Rows, int Packets, class C>
[[gnu::noinline]] void block_tile(const BlockProduct<C>& product, Index row, Index column, Index rows, Index inner) {
  using P = Packet<C>;
  constexpr Index width = lanes<P>;
  const C* a_row[array_size<Rows>];
  unroll<Rows>([&](auto i) { a_row[i] = product.a + (row + std::min<Index>(i, rows - 1)) * product.a_row; });
  P sum[array_size<Rows>][array_size<Packets>];
  unroll<Rows * Packets>([&](auto i) { sum[i / Packets][i % Packets] = P(0); });
  const C* b = product.b + column;
  const Index step = product.a_step, b_stride = product.b_stride;
  for (Index k = 0; k < inner; ++k, b += b_stride) {
    P b_k[array_size<Packets>];
    unroll<Packets>([&](auto j) { b_k[j] = load<P>(b + j * width); });
    unroll<Rows>([&](auto i) {
      const P a_ik = a_row[i][k * step];
      unroll<Packets>([&](auto j) { sum[i][j] = fma(a_ik, b_k[j], sum[i][j]); });
    });
  }
  unroll<Rows>([&](auto i) {
    if (i >= rows) return;
    C* const to = product.c + (row + i) * product.c_stride + column;
    unroll<Packets>(
        [&](auto j) { store(to + j * width, product.accumulate ? load<P>(to + j * width) + sum[i][j] : sum[i][j]); });
  });
}

/// Rows from `row` on, across Packets packets of columns, in tiles of Rows rows and then in lower ones.
template <int Rows, int Packets, class C>
void block_rows(const BlockProduct<C>& product, Index row, Index rows, Index column, Index inner) {
  constexpr int lower = Rows > 4 ? 4 : Rows / 2;
  for (; row < rows && (rows - row > lower || Rows == 1); row += Rows) {
    block_tile<Rows, Packets>(product, row, column, std::min<Index>(Rows, rows - row), inner);
  }
  if constexpr (Rows > 1) {
    if (row < rows) block_rows<lower, Packets>(product, row, rows, column, inner);
  }
}

/// C = A B or C += A B for `columns` columns, a multiple of a packet's lanes. An element is summed over `inner` from
/// first to last, whatever its tile.
template <class C>
void block_product(const BlockProduct<C>& product, Index rows, Index columns, Index inner) {
  constexpr Index width = lanes<Packet<C>>, most = AttentionBlocks<C>::packets;
  constexpr int height = AttentionBlocks<C>::rows;
  for (Index column = 0; column < columns; column += most * width) {
    const Index packets = std::min(most, (columns - column) / width);
    if (packets == most) {
      block_rows<height, most>(product, 0, rows, column, inner);
    } else if (packets == 3) {
      block_rows<height, 3>(product, 0, rows, column, inner);
    } else if (packets == 2) {
      block_rows<height, 2>(product, 0, rows, column, inner);
    } else {
      block_rows<height, 1>(product, 0, rows, column, inner);
    }
  }
}

/// The keys or values that one head of one sequence can attend to, in the cache and in the call's own rows.
template <class C, int HeadWidth>
struct SeenView {
  SeenRows seen;
  const C* cache;  // [N, d]; null if no cached row is read
  const C* own;    // the row of the call's first step
  Index own_stride;

  const C* row(Index j) const {
    return j < seen.cached ? cache + seen.slot(j) * HeadWidth : own + (j - seen.cached) * own_stride;
  }
  Index stride(Index j) const { return j < seen.cached ? Index{HeadWidth} : own_stride; }
  /// How many of the rows j … last - 1, from row j on, lie at a constant stride.
  Index contiguous(Index j, Index last) const {
    if (j >= seen.cached) return last - j;
    return std::min({last - j, seen.cached - j, seen.context - seen.slot(j)});
  }
};

/// to[0 … padded width) = scale · from[0 … HeadWidth), followed by zeros.
template <int HeadWidth, class C>
void copy_padded(const C* from, C scale, C* to) {
  using P = Packet<C>;
  constexpr Index width = lanes<P>, whole = HeadWidth / width * width;
  for (Index i = 0; i < whole; i += width) store(to + i, load<P>(from + i) * scale);
  if constexpr (whole < HeadWidth) {
    store(to + whole, load_partial<P>(from + whole, HeadWidth - whole) * scale);
  }
}

/// Rows first … first + count - 1 into a block of padded rows.
template <class C, int HeadWidth>
void copy_rows(const SeenView<C, HeadWidth>& rows, Index first, Index count, C* to) {
  constexpr Index padded = padded_to_packets<C>(HeadWidth);
  for (Index j = 0; j < count; ++j) copy_padded<HeadWidth>(rows.row(first + j), C(1), to + j * padded);
}

/// The same rows as columns: to[i * AttentionBlocks::keys + j] is element i of row j, and zero in the rest of the last
/// packet of rows.
template <class C, int HeadWidth>
[[gnu::flatten]] void copy_transposed(const SeenView<C, HeadWidth>& rows, Index first, Index count, C* to) {
  using P = Packet<C>;
  constexpr Index width = lanes<P>, stride = AttentionBlocks<C>::keys;
  for (Index j = 0; j < count; j += width) {
    const C* from[array_size<width>];
    for (Index k = 0; k < width; ++k) from[k] = rows.row(first + std::min(j + k, count - 1));
    for (Index i = 0; i < HeadWidth; i += width) {
      const Index here = std::min<Index>(width, HeadWidth - i);
      P square[array_size<width>];
      unroll<width>([&](auto k) {
        square[k] = j + k >= count ? P(0) : here == width ? load<P>(from[k] + i) : load_partial<P>(from[k] + i, here);
      });
      transpose(square);
      unroll<width>([&](auto k) {
        if (k < here) store(to + (i + k) * stride + j, square[k]);
      });
    }
  }
}

/// values = e^(values - shift), and their sum.
template <class C>
C exponentials(C* values, Index count, C shift) {
  using P = Packet<C>;
  constexpr Index width = lanes<P>;
  const P shifts = shift;
  P even = 0, odd = 0;
  Index i = 0;
  for (; i + 2 * width <= count; i += 2 * width) {
    const P a = exponential(load<P>(values + i) - shifts);
    const P b = exponential(load<P>(values + i + width) - shifts);
    store(values + i, a);
    store(values + i + width, b);
    even += a;
    odd += b;
  }
  for (; i < count; i += width) {
    const Index here = std::min(width, count - i);
    const P a = exponential(load_partial<P>(values + i, here) - shifts);
    store_partial<P>(values + i, a, here);
    even += load_partial<P>(values + i, here);
  }
  return horizontal_sum(even + odd);
}

/// The rows of a block of queries: row r is head r % group of step `step` + r / group.
struct QueryBlock {
  Index step, rows, group;

  Index step_of(Index row) const { return step + row / group; }
  Index last_step() const { return step_of(rows - 1); }
};

/// How a call's queries are divided into blocks, for each sequence and key-value head.
template <class C>
struct QueryBlocks {
  Index length, group;

  constexpr Index steps() const { return std::max<Index>(1, AttentionBlocks<C>::queries / group); }
  constexpr Index blocks() const { return ceiling_divide(length, steps()); }
  constexpr Index rows() const { return steps() * group; }
  constexpr QueryBlock block(Index index) const {
    return {index * steps(), std::min(steps(), length - index * steps()) * group, group};
  }
};

}  // namespace moe_mamba::inline v0_2::cpu::detail
