#pragma once

#include <algorithm>

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/cpu/device.hpp"
#include "moe_mamba/cpu/packet_access.hpp"

/// How operations that read their operands once divide their work: into chunks that depend on sizes alone, never on the
/// number of threads, so results do not depend on it either.
namespace moe_mamba::inline v0_2::cpu::detail {

/// Elements per task: some microseconds of work, far more than the cost of handing a task to a thread.
inline constexpr Index task_elements = 16384;

/// 0 … count - 1 in chunks of `length`, the last one shorter.
struct Chunks {
  Index count = 0;
  Index length = 1;

  constexpr Index chunks() const { return ceiling_divide(count, length); }
  constexpr Index first(Index chunk) const { return chunk * length; }
  constexpr Index last(Index chunk) const { return std::min(count, (chunk + 1) * length); }
};

/// Rows in chunks of about task_elements elements.
constexpr Chunks row_chunks(Index rows, Index columns) {
  return {rows, std::max<Index>(1, task_elements / std::max<Index>(1, columns))};
}

/// The same in at most `limit` >= 1 chunks, for reductions that keep a partial sum for each chunk.
constexpr Chunks row_chunks(Index rows, Index columns, Index limit) {
  return {rows, std::max(row_chunks(rows, columns).length, ceiling_divide(rows, std::max<Index>(1, limit)))};
}

/// Upper bound on their number, for up to `rows` rows.
constexpr Index most_row_chunks(Index rows, Index columns, Index limit) {
  return std::min(std::max<Index>(1, limit), row_chunks(rows, columns).chunks());
}

/// task(first, last) for chunks of the rows 0 … rows - 1.
template <class Task>
void for_rows(Device& device, Index rows, Index columns, const Task& task) {
  const Chunks chunks = row_chunks(rows, columns);
  device.parallel(chunks.chunks(), [&](Index chunk, int) { task(chunks.first(chunk), chunks.last(chunk)); });
}

/// Whether each view can be read as one long row.
template <class... Scalars>
constexpr bool all_contiguous(const MatrixView<Scalars>&... views) {
  return ((views.stride == views.columns || views.rows <= 1) && ...);
}

/// task(row, column, count) for segments that cover matrices of one size: rows or, if the caller says that all of the
/// matrices are `contiguous`, chunks of all their elements, passed as parts of row 0.
template <class Task>
void for_segments(Device& device, Index rows, Index columns, bool contiguous, const Task& task) {
  if (contiguous) {
    const Chunks chunks{rows * columns, task_elements};
    device.parallel(chunks.chunks(), [&](Index chunk, int) {
      task(Index(0), chunks.first(chunk), chunks.last(chunk) - chunks.first(chunk));
    });
  } else {
    for_rows(device, rows, columns, [&](Index first, Index last) {
      for (Index row = first; row < last; ++row) task(row, Index(0), columns);
    });
  }
}

/// each.operator()<P>(i) for i in 0 … count - 1, packet by packet with P = Packet<C>, then one by one with Packet<C,
/// 1>.
template <ComputeScalar C, class Each>
[[gnu::always_inline]] inline void sweep(Index count, const Each& each) {
  constexpr Index step = lanes<Packet<C>>;
  // Masked, so that g++ 12 knows it to be below `step`: otherwise it warns of an infinite second loop.
  const Index rest = count & (step - 1), packed = count - rest;
  for (Index i = 0; i < packed; i += step) each.template operator()<Packet<C>>(i);
  for (Index i = 0; i < rest; ++i) each.template operator()<Packet<C, 1>>(packed + i);
}

/// The sum over 0 … count - 1 of what each.operator()<P>(i, sum) adds to `sum`, in four interleaved sums of packets: an
/// order that depends on `count` alone.
template <ComputeScalar C, class Each>
[[gnu::always_inline]] inline C sweep_sum(Index count, const Each& each) {
  using P = Packet<C>;
  constexpr Index step = lanes<P>;
  P sum0 = 0, sum1 = sum0, sum2 = sum0, sum3 = sum0;
  Index i = 0;
  for (; count - i >= 4 * step; i += 4 * step) {
    sum0 = each.template operator()<P>(i, sum0);
    sum1 = each.template operator()<P>(i + step, sum1);
    sum2 = each.template operator()<P>(i + 2 * step, sum2);
    sum3 = each.template operator()<P>(i + 3 * step, sum3);
  }
  for (; count - i >= step; i += step) sum0 = each.template operator()<P>(i, sum0);
  Packet<C, 1> sum = horizontal_sum(sum0 + sum1 + (sum2 + sum3));
  const Index rest = count & (step - 1);
  for (Index k = 0; k < rest; ++k) sum = each.template operator()<Packet<C, 1>>(count - rest + k, sum);
  return sum.native;
}

/// The largest of `count` >= 1 values; if one is NaN, NaN or any of the values.
template <ComputeScalar C>
[[gnu::always_inline]] inline C sweep_max(const C* values, Index count) {
  using P = Packet<C>;
  constexpr Index step = lanes<P>;
  C largest = values[0];
  Index i = 0;
  if (count >= step) {
    P max0 = load<P>(values), max1 = max0;
    for (; count - i >= 2 * step; i += 2 * step) {
      max0 = max(max0, load<P>(values + i));
      max1 = max(max1, load<P>(values + i + step));
    }
    for (; count - i >= step; i += step) max0 = max(max0, load<P>(values + i));
    largest = horizontal_max(max(max0, max1));
  }
  const Index rest = count & (step - 1);
  for (Index k = 0; k < rest; ++k) largest = std::max(largest, values[count - rest + k]);
  return largest;
}

/// Σ values[i]², every square and sum in double.
template <ComputeScalar C>
inline double square_sum(const C* values, Index count) {
  return sweep_sum<double>(count, [=]<class P>(Index i, P sum) {
    const P value = load_as_double<P>(values + i);
    return fma(value, value, sum);
  });
}

}  // namespace moe_mamba::inline v0_2::cpu::detail
