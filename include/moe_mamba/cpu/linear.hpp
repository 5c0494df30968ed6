#pragma once

#include <algorithm>

#include "moe_mamba/cpu/chunks.hpp"
#include "moe_mamba/cpu/device.hpp"
#include "moe_mamba/cpu/dot_products.hpp"
#include "moe_mamba/cpu/elementwise.hpp"
#include "moe_mamba/cpu/gemm.hpp"
#include "moe_mamba/cpu/packet_access.hpp"
#include "moe_mamba/ops/linear.hpp"

/// Matrix products with weights stored [out, in], on a CPU; the contract is in ops/linear.hpp.
///
/// A product with one matrix is a grouped one with one group. A task is a range of a result's columns and, if those are
/// too few for all threads, a range of a group's rows; all groups share one parallel region.
namespace moe_mamba::inline v0_2::cpu {

namespace detail {

/// Rows and columns of the block of a result that a task computes.
struct BlockShape {
  Index rows = 0;
  Index columns = 0;
};

/// The blocks into which `results` results of `columns` columns are divided, with `rows` rows in total and `largest` in
/// the largest one. About four blocks per thread balance unequal speeds; a block of fewer than 2^16 multiplications is
/// not worth a task.
template <class C>
BlockShape block_shape(int threads, Index results, Index rows, Index largest, Index columns, Index inner) {
  using Blocks = GemmBlocks<C>;
  BlockShape shape{std::max<Index>(largest, 1), std::max<Index>(columns, 1)};
  if (threads == 1 || results == 0) return shape;
  const double multiplications = static_cast<double>(rows) * static_cast<double>(columns) * static_cast<double>(inner);
  const Index blocks = static_cast<Index>(std::min(4.0 * threads, 1 + multiplications / 65536));
  const Index panels = ceiling_divide(columns, Blocks::columns);
  const Index across = std::min(panels, ceiling_divide(blocks, results));
  if (across == 0) return shape;
  shape.columns = ceiling_divide(panels, across) * Blocks::columns;
  const Index down = blocks / (results * across);
  if (down > 1) {
    const Index tiles = ceiling_divide(largest, Blocks::rows);
    shape.rows = std::max<Index>(4, ceiling_divide(tiles, down)) * Blocks::rows;
  }
  return shape;
}

/// Upper bound on the scratch of multiply_groups in bytes per thread, if no group has more than `rows` rows.
template <Along b_along, ComputeScalar C>
constexpr std::size_t product_scratch(Index rows, Index columns, Index inner) {
  const std::size_t dots = b_along == Along::inner ? dot_scratch<C>(std::min(rows, few_rows), inner) : 0;
  if (b_along == Along::inner && are_few_rows<C>(rows, inner)) return dots;
  return std::max(dots, gemm_scratch<Along::inner, b_along, C>(rows, columns, inner));
}

/// y = x B or y += x B for rows in groups: the B of group g starts at b + g * b_step and has as many columns as y.
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
  const BlockShape shape = block_shape<C>(device.threads(), results, rows, largest, y.columns, x.columns);
  Index row_blocks = 0;
  for (Index g = 0; g < groups.count; ++g) {
    row_blocks += ceiling_divide(groups.offsets[g + 1] - groups.offsets[g], shape.rows);
  }
  const Index column_blocks = ceiling_divide(y.columns, shape.columns);
  const auto scratch = device.thread_scratch(product_scratch<b_along, C>(largest, y.columns, x.columns));
  device.parallel(row_blocks * column_blocks, [&](Index task, int thread) {
    Index block = task / column_blocks, g = 0;
    for (;; ++g) {
      const Index here = ceiling_divide(groups.offsets[g + 1] - groups.offsets[g], shape.rows);
      if (block < here) break;
      block -= here;
    }
    const Index first = groups.offsets[g], count = groups.offsets[g + 1] - first;
    const Product<C, S> product{x.row(first), x.stride, b + g * b_step, b_stride,  y.row(first),
                                y.stride,     count,    y.columns,      x.columns, accumulate};
    const Range block_rows{block * shape.rows, std::min((block + 1) * shape.rows, count)};
    const Index column = task % column_blocks * shape.columns;
    const Range block_columns{column, std::min(column + shape.columns, y.columns)};
    if constexpr (b_along == Along::inner) {
      if (are_few_rows<C>(count, x.columns)) {
        dot_products(product, block_rows, block_columns, scratch(thread));
        return;
      }
    }
    gemm_block<Along::inner, b_along>(product, block_rows, block_columns, scratch(thread));
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
  const BlockShape shape = block_shape<C>(device.threads(), results, rows, dy.columns, x.columns, dy.columns);
  const Index row_blocks = ceiling_divide(dy.columns, shape.rows),
              column_blocks = ceiling_divide(x.columns, shape.columns);
  const auto scratch = device.thread_scratch(gemm_scratch<Along::outer, Along::outer, C>(dy.columns, x.columns, rows));
  device.parallel(groups.count * row_blocks * column_blocks, [&](Index task, int thread) {
    const Index g = task / (row_blocks * column_blocks);
    const Index first = groups.offsets[g], count = groups.offsets[g + 1] - first;
    if (count <= 0) return;
    const Product<C, C> product{dy.row(first), dy.stride,  x.row(first), x.stride, dweight + g * step,
                                stride,        dy.columns, x.columns,    count,    true};
    const Index row = task / column_blocks % row_blocks * shape.rows, column = task % column_blocks * shape.columns;
    gemm_block<Along::outer, Along::outer>(product, {row, std::min(row + shape.rows, dy.columns)},
                                           {column, std::min(column + shape.columns, x.columns)}, scratch(thread));
  });
}

/// Rows that lie in the order of the groups, in the room for them, go to their places, or are added there.
template <class C>
void scatter_rows(Device& device, Groups groups, const ScatteredRows<C>& rows, Into into) {
  const Index columns = rows.to.columns;
  for_rows(device, groups.offsets[groups.count], columns, [&](Index first, Index last) {
    for (Index s = first; s < last; ++s) {
      const C* from = rows.room.row(s);
      C* to = rows.to.row(rows.places[s]);
      if (into == Into::assign) {
        std::copy_n(from, columns, to);
      } else {
        sweep<C>(columns, [=]<class P>(Index i) { store(to + i, load<P>(to + i) + load<P>(from + i)); });
      }
    }
  });
}

}  // namespace detail

/// Upper bound on the scratch in bytes per thread of products of up to `rows` rows with a matrix (out, in) or one of a
/// stack of such matrices; with `training` including those of the backward pass.
template <ComputeScalar C>
constexpr std::size_t linear_thread_scratch(const Device&, Index rows, Index in, Index out, bool training) {
  const std::size_t forward = detail::product_scratch<Along::inner, C>(rows, out, in);
  if (!training) return forward;
  return std::max({forward, detail::product_scratch<Along::outer, C>(rows, in, out),
                   gemm_scratch<Along::outer, Along::outer, C>(out, in, rows)});
}

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

/// y = x Wᵀ, each row with its group's matrix
template <class C, class S>
void grouped_linear(Device& device, Groups groups, Input<C> x, MatrixStack<const S> weight, MatrixView<C> y) {
  detail::multiply_groups<Along::inner, C>(device, groups, x, weight.data, weight.rows * weight.columns, weight.columns,
                                           y, false);
}

/// dx = or += dy W, each row with its group's matrix
template <class C, class S>
void grouped_linear_backward_input(Device& device, Groups groups, Input<C> dy, MatrixStack<const S> weight,
                                   MatrixView<C> dx, Into into) {
  detail::multiply_groups<Along::outer, C>(device, groups, dy, weight.data, weight.rows * weight.columns,
                                           weight.columns, dx, into == Into::add);
}

/// The same with rows that go to other places
template <class C, class S>
void grouped_linear(Device& device, Groups groups, Input<C> x, MatrixStack<const S> weight, ScatteredRows<C> y) {
  grouped_linear(device, groups, x, weight, y.room);
  detail::scatter_rows(device, groups, y, Into::assign);
}
template <class C, class S>
void grouped_linear_backward_input(Device& device, Groups groups, Input<C> dy, MatrixStack<const S> weight,
                                   ScatteredRows<C> dx, Into into) {
  grouped_linear_backward_input(device, groups, dy, weight, dx.room, Into::assign);
  detail::scatter_rows(device, groups, dx, into);
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
  const detail::Chunks chunks = detail::row_chunks(y.rows, y.columns);
  device.parallel(chunks.chunks(), [&](Index chunk, int) {
    for (Index t = chunks.first(chunk); t < chunks.last(chunk); ++t) {
      C* const row = y.row(t);
      Index o = 0;
      for (; o + width <= y.columns; o += width) store(row + o, load<P>(row + o) + load_widened<P>(bias + o));
      for (; o < y.columns; ++o) row[o] += static_cast<C>(bias[o]);
    }
  });
}

namespace detail {

/// dbias[0 … lanes<P> · count) += the sum of the rows from `dy` on, summed in segments, so rounding errors grow with
/// the length of a segment plus the number of segments, not with their product.
template <class P, int count, class C>
[[gnu::always_inline]] inline void sum_rows(const C* dy, Index stride, Index rows, C* dbias) {
  constexpr Index segment = 128;
  P total[array_size<count>];
  unroll<count>([&](auto j) { total[j] = load<P>(dbias + j * lanes<P>); });
  for (Index first = 0; first < rows; first += segment) {
    P sum[array_size<count>];
    unroll<count>([&](auto j) { sum[j] = P(0); });
    for (Index t = first; t < std::min(first + segment, rows); ++t) {
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

}  // namespace moe_mamba::inline v0_2::cpu
