#pragma once

#include <algorithm>

#include "moe_mamba/cpu/device.hpp"
#include "moe_mamba/cpu/dot_products.hpp"
#include "moe_mamba/cpu/elementwise.hpp"
#include "moe_mamba/cpu/gemm.hpp"
#include "moe_mamba/cpu/packet_access.hpp"
#include "moe_mamba/cpu/pieces.hpp"
#include "moe_mamba/ops/linear.hpp"

/// Matrix products with weights stored [out, in], on a CPU; the contract is in ops/linear.hpp.
///
/// A product of one matrix is a grouped one with one group. Results are cut into tasks of some columns and, where those
/// are not enough for all threads, of some rows of a group; all groups are one parallel region.
namespace moe_mamba::cpu {

namespace detail {

/// How results are cut: into pieces of so many rows and columns.
struct Cut {
  Index rows = 0;
  Index columns = 0;
};

/// Cuts results of `rows` by `columns` each, `rows` in all over the groups that have any, `largest` in the largest one.
/// On many threads about four pieces each even out unlike speeds; a piece of fewer than 2^16 multiplications costs more
/// to hand over than it saves.
template <class C>
Cut cut_results(int threads, Index results, Index rows, Index largest, Index columns, Index inner) {
  using Blocks = GemmBlocks<C>;
  Cut cut{std::max<Index>(largest, 1), std::max<Index>(columns, 1)};
  if (threads == 1 || results == 0) return cut;
  const double multiplications = static_cast<double>(rows) * static_cast<double>(columns) * static_cast<double>(inner);
  const Index pieces = static_cast<Index>(std::min(4.0 * threads, 1 + multiplications / 65536));
  const Index panels = ceiling_divide(columns, Blocks::columns);
  const Index across = std::min(panels, ceiling_divide(pieces, results));
  if (across == 0) return cut;
  cut.columns = ceiling_divide(panels, across) * Blocks::columns;
  const Index down = pieces / (results * across);
  if (down > 1) {
    const Index tiles = ceiling_divide(largest, Blocks::rows);
    cut.rows = std::max<Index>(4, ceiling_divide(tiles, down)) * Blocks::rows;
  }
  return cut;
}

/// y = or += x B for rows in groups: B of group g starts at b + g * b_step, its columns are y's.
template <Along b_along, class C, class S>
void multiply_groups(Device& device, Groups groups, MatrixView<const C> x, const S* b, Index b_step, Index b_stride,
                     MatrixView<C> y, bool accumulate) {
  Index results = 0, largest = 0, rows = 0;
  for (Index g = 0; g < groups.count; ++g) {
    const Index count = groups.offsets[g + 1] - groups.offsets[g];
    results += count > 0 ? 1 : 0;
    rows += count;
    largest = std::max(largest, count);
  }
  if (results == 0 || y.columns == 0 || (accumulate && x.columns == 0)) return;
  const Cut cut = cut_results<C>(device.threads(), results, rows, largest, y.columns, x.columns);
  Index row_pieces = 0;
  for (Index g = 0; g < groups.count; ++g) {
    row_pieces += ceiling_divide(groups.offsets[g + 1] - groups.offsets[g], cut.rows);
  }
  const Index column_pieces = ceiling_divide(y.columns, cut.columns);
  device.parallel(row_pieces * column_pieces, [&](Index task, int thread) {
    Index piece = task / column_pieces, g = 0;
    for (;; ++g) {
      const Index here = ceiling_divide(groups.offsets[g + 1] - groups.offsets[g], cut.rows);
      if (piece < here) break;
      piece -= here;
    }
    const Index first = groups.offsets[g], count = groups.offsets[g + 1] - first;
    const Product<C, S> product{x.row(first), x.stride, b + g * b_step, b_stride,  y.row(first),
                                y.stride,     count,    y.columns,      x.columns, accumulate};
    const Range piece_rows{piece * cut.rows, std::min((piece + 1) * cut.rows, count)};
    const Index column = task % column_pieces * cut.columns;
    const Range piece_columns{column, std::min(column + cut.columns, y.columns)};
    if constexpr (b_along == Along::inner) {
      if (are_few_rows<C>(count, x.columns)) {
        dot_products(product, piece_rows, piece_columns, device.scratch(thread));
        return;
      }
    }
    gemm_block<Along::inner, b_along>(product, piece_rows, piece_columns, device.scratch(thread));
  });
}

/// dweight of group g, at dweight + g * step, += dyᵀ x over the rows of the group.
template <class C>
void multiply_transposed_groups(Device& device, Groups groups, MatrixView<const C> dy, MatrixView<const C> x,
                                C* dweight, Index step, Index stride) {
  Index results = 0, rows = 0;
  for (Index g = 0; g < groups.count; ++g) {
    const Index count = groups.offsets[g + 1] - groups.offsets[g];
    results += count > 0 ? 1 : 0;
    rows += count;
  }
  if (results == 0 || dy.columns == 0 || x.columns == 0) return;
  const Cut cut = cut_results<C>(device.threads(), results, rows, dy.columns, x.columns, dy.columns);
  const Index row_pieces = ceiling_divide(dy.columns, cut.rows), column_pieces = ceiling_divide(x.columns, cut.columns);
  device.parallel(groups.count * row_pieces * column_pieces, [&](Index task, int thread) {
    const Index g = task / (row_pieces * column_pieces);
    const Index first = groups.offsets[g], count = groups.offsets[g + 1] - first;
    if (count <= 0) return;
    const Product<C, C> product{dy.row(first), dy.stride,  x.row(first), x.stride, dweight + g * step,
                                stride,        dy.columns, x.columns,    count,    true};
    const Index row = task / column_pieces % row_pieces * cut.rows, column = task % column_pieces * cut.columns;
    gemm_block<Along::outer, Along::outer>(product, {row, std::min(row + cut.rows, dy.columns)},
                                           {column, std::min(column + cut.columns, x.columns)}, device.scratch(thread));
  });
}

}  // namespace detail

/// y = x Wᵀ
template <class C, class S>
void linear(Device& device, Input<C> x, MatrixView<const S> weight, MatrixView<C> y) {
  const Index offsets[] = {0, y.rows};
  detail::multiply_groups<Along::inner, C>(device, {offsets, 1}, x, weight.data, 0, weight.stride, y, false);
}

/// dx = or += dy W
template <class C, class S>
void linear_backward_input(Device& device, Input<C> dy, MatrixView<const S> weight, MatrixView<C> dx, Into into) {
  const Index offsets[] = {0, dx.rows};
  detail::multiply_groups<Along::outer, C>(device, {offsets, 1}, dy, weight.data, 0, weight.stride, dx,
                                           into == Into::add);
}

/// dW += dyᵀ x, unrounded whatever S is
template <class S, class C>
void linear_backward_weight(Device& device, Input<C> dy, Input<C> x, MatrixView<C> dweight) {
  const Index offsets[] = {0, x.rows};
  detail::multiply_transposed_groups<C>(device, {offsets, 1}, dy, x, dweight.data, 0, dweight.stride);
}

/// y = x Wᵀ, row by row with the matrix of its group
template <class C, class S>
void grouped_linear(Device& device, Groups groups, Input<C> x, MatrixStack<const S> weight, MatrixView<C> y) {
  detail::multiply_groups<Along::inner, C>(device, groups, x, weight.data, weight.rows * weight.columns, weight.columns,
                                           y, false);
}

/// dx = or += dy W, row by row with the matrix of its group
template <class C, class S>
void grouped_linear_backward_input(Device& device, Groups groups, Input<C> dy, MatrixStack<const S> weight,
                                   MatrixView<C> dx, Into into) {
  detail::multiply_groups<Along::outer, C>(device, groups, dy, weight.data, weight.rows * weight.columns,
                                           weight.columns, dx, into == Into::add);
}

/// dW of each group = or += dyᵀ x over the rows of the group, unrounded whatever S is
template <class S, class C>
void grouped_linear_backward_weight(Device& device, Groups groups, Input<C> dy, Input<C> x, MatrixStack<C> dweight,
                                    Into into) {
  if (into == Into::assign) fill(device, C(0), matrix(dweight.data, groups.count * dweight.rows, dweight.columns));
  detail::multiply_transposed_groups<C>(device, groups, dy, x, dweight.data, dweight.rows * dweight.columns,
                                        dweight.columns);
}

/// y += bias, for each row
template <class C, class S>
void add_bias(Device& device, const S* bias, MatrixView<C> y) {
  using P = Packet<C>;
  constexpr Index width = lanes<P>;
  const detail::Pieces pieces = detail::row_pieces(y.rows, y.columns);
  device.parallel(pieces.pieces(), [&](Index task, int) {
    for (Index t = pieces.first(task); t < pieces.last(task); ++t) {
      C* const row = y.row(t);
      Index o = 0;
      for (; o + width <= y.columns; o += width) store(row + o, load<P>(row + o) + load_widened<P>(bias + o));
      for (; o < y.columns; ++o) row[o] += static_cast<C>(bias[o]);
    }
  });
}

namespace detail {

/// dbias[0 … lanes of P · count) += the sum of the rows below `dy`, summed in runs so that rounding grows with the
/// length of a run and the number of runs, not with their product.
template <class P, int count, class C>
[[gnu::always_inline]] inline void sum_rows(const C* dy, Index stride, Index rows, C* dbias) {
  constexpr Index run = 128;
  P total[array_size<count>];
  unroll<count>([&](auto j) { total[j] = load<P>(dbias + j * lanes<P>); });
  for (Index first = 0; first < rows; first += run) {
    P sum[array_size<count>];
    unroll<count>([&](auto j) { sum[j] = P(0); });
    for (Index t = first; t < std::min(first + run, rows); ++t) {
      unroll<count>([&](auto j) { sum[j] += load<P>(dy + t * stride + j * lanes<P>); });
    }
    unroll<count>([&](auto j) { total[j] += sum[j]; });
  }
  unroll<count>([&](auto j) { store(dbias + j * lanes<P>, total[j]); });
}

}  // namespace detail

/// dbias += the sum of dy's rows
template <class C>
void bias_backward(Device& device, Input<C> dy, C* dbias) {
  using P = Packet<C>;
  constexpr int packets = 4;
  constexpr Index columns = 4 * packets * lanes<P>;
  device.parallel(ceiling_divide(dy.columns, columns), [&](Index task, int) {
    Index o = task * columns;
    const Index last = std::min(o + columns, dy.columns);
    for (; o + packets * lanes<P> <= last; o += packets * lanes<P>) {
      detail::sum_rows<P, packets>(dy.data + o, dy.stride, dy.rows, dbias + o);
    }
    for (; o + lanes<P> <= last; o += lanes<P>) detail::sum_rows<P, 1>(dy.data + o, dy.stride, dy.rows, dbias + o);
    for (; o < last; ++o) detail::sum_rows<Packet<C, 1>, 1>(dy.data + o, dy.stride, dy.rows, dbias + o);
  });
}

}  // namespace moe_mamba::cpu
