#pragma once

#include <algorithm>
#include <array>

#include "moe_mamba/cpu/chunks.hpp"
#include "moe_mamba/ops/elementwise.hpp"

/// Plain loops over matrices on the CPU; the contract is in ops/elementwise.hpp.
namespace moe_mamba::inline v0_2::cpu {

/// y = x
template <ComputeScalar C>
void copy(Device& device, Input<C> x, MatrixView<C> y) {
  detail::for_segments(
      device, y.rows, y.columns, detail::all_contiguous(x, y),
      [&](Index row, Index column, Index count) { std::copy_n(x.row(row) + column, count, y.row(row) + column); });
}

/// y += x
template <ComputeScalar C>
void add(Device& device, Input<C> x, MatrixView<C> y) {
  detail::for_segments(
      device, y.rows, y.columns, detail::all_contiguous(x, y), [&](Index row, Index column, Index count) {
        const C* from = x.row(row) + column;
        C* to = y.row(row) + column;
        detail::sweep<C>(count, [=]<class P>(Index i) { store(to + i, load<P>(to + i) + load<P>(from + i)); });
      });
}

/// y = value
template <ComputeScalar C>
void fill(Device& device, std::type_identity_t<C> value, MatrixView<C> y) {
  detail::for_segments(device, y.rows, y.columns, detail::all_contiguous(y),
                       [&](Index row, Index column, Index count) { std::fill_n(y.row(row) + column, count, value); });
}

/// y *= factor
template <ComputeScalar C>
void scale(Device& device, std::type_identity_t<C> factor, MatrixView<C> y) {
  detail::for_segments(device, y.rows, y.columns, detail::all_contiguous(y), [&](Index row, Index column, Index count) {
    C* to = y.row(row) + column;
    detail::sweep<C>(count, [=]<class P>(Index i) { store(to + i, factor * load<P>(to + i)); });
  });
}

/// *sum = Σ (x - target)², summed in double; dx = 2 · scale · (x - target) if dx has data.
template <ComputeScalar C>
void squared_error(Device& device, Input<C> x, Input<C> target, double scale, MatrixView<C> dx, double* sum) {
  constexpr Index block = 256;  // differences kept at a time if dx does not hold them
  std::array<double, 64> sums = {};
  const detail::Chunks chunks = detail::row_chunks(x.rows, x.columns, static_cast<Index>(sums.size()));
  device.parallel(chunks.chunks(), [&](Index chunk, int) {
    double part = 0;
    for (Index t = chunks.first(chunk); t < chunks.last(chunk); ++t) {
      for (Index first = 0; first < x.columns; first += block) {
        const Index count = std::min(block, x.columns - first);
        const C* from = x.row(t) + first;
        const C* wanted = target.row(t) + first;
        alignas(64) C differences[block];
        detail::sweep<C>(count,
                         [&]<class P>(Index i) { store(differences + i, load<P>(from + i) - load<P>(wanted + i)); });
        part += detail::square_sum(differences, count);
        if (dx.data == nullptr) continue;
        C* to = dx.row(t) + first;
        const C factor = static_cast<C>(2 * scale);
        detail::sweep<C>(count, [&]<class P>(Index i) { store(to + i, factor * load<P>(differences + i)); });
      }
    }
    sums[static_cast<std::size_t>(chunk)] = part;
  });
  *sum = 0;
  for (const double part : sums) *sum += part;
}

}  // namespace moe_mamba::inline v0_2::cpu
