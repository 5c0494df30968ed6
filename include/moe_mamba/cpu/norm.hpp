#pragma once

#include <cmath>

#include "moe_mamba/cpu/chunks.hpp"
#include "moe_mamba/cpu/elementwise.hpp"
#include "moe_mamba/ops/norm.hpp"

/// Normalisation of rows on the CPU; the contract is in ops/norm.hpp. A row is read from memory once; sums over a row
/// run in the compute type, in four interleaved vectors.
namespace moe_mamba::inline v0_2::cpu {

namespace detail {

/// Rows per segment. Columns are summed within each segment before the segments are added, so rounding errors grow with
/// the length of a segment plus the number of segments, not with their product.
inline constexpr Index segment_rows = 16;

/// The layout of for_rows_with_column_sums's partial sums, of `arrays` arrays of `columns` elements.
template <ComputeScalar C>
struct ColumnSums {
  static constexpr Index line = Arena::alignment / sizeof(C);
  Index stride, set, room;  // elements of an array and of all of them; chunks that fit in the scratch

  constexpr ColumnSums(Index columns, int arrays)
      : stride(ceiling_divide(columns, line) * line),
        set(arrays * stride),  // a chunk has two sets: its own sums and those of the current segment
        room(static_cast<Index>(Device::thread_scratch_bytes / sizeof(C)) / std::max<Index>(1, 2 * set)) {}

  constexpr bool are_partial(Index rows) const { return rows > segment_rows && room >= 1; }
  constexpr Index most_chunks() const { return std::min<Index>(32, room); }
  /// Bytes of scratch for up to `rows` rows.
  constexpr std::size_t bytes(Index rows, Index columns) const {
    if (!are_partial(rows)) return 0;
    return static_cast<std::size_t>(most_row_chunks(rows, columns, most_chunks()) * 2 * set) * sizeof(C);
  }
};

/// Calls row(t, sums) for each row, where `sums` are `arrays` arrays of `columns` elements to accumulate into, and
/// finally adds these to `totals`. Each chunk of rows has its own partial sums, in the scratch memory of the first
/// thread.
template <ComputeScalar C, int arrays, class Row>
void for_rows_with_column_sums(Device& device, Index rows, Index columns, C* const (&totals)[array_size<arrays>],
                               const Row& row) {
  struct Sums {
    C* array[array_size<arrays>];
  };
  const ColumnSums<C> sizes(columns, arrays);
  const Index stride = sizes.stride, set = sizes.set;
  const Chunks chunks = row_chunks(rows, columns, sizes.most_chunks());
  Sums total;
  for (int array = 0; array < arrays; ++array) total.array[array] = totals[array];
  if (!sizes.are_partial(rows)) {
    for (Index t = 0; t < rows; ++t) row(t, total.array);
    return;
  }
  const auto sums_at = [=](C* begin) {
    Sums sums;
    for (int array = 0; array < arrays; ++array) sums.array[array] = begin + array * stride;
    return sums;
  };
  const auto add_to = [=](const Sums& from, const Sums& to) {
    for (int array = 0; array < arrays; ++array) {
      const C* source = from.array[array];
      C* sum = to.array[array];
      sweep<C>(columns, [=]<class P>(Index i) { store(sum + i, load<P>(sum + i) + load<P>(source + i)); });
    }
  };
  C* const partial = reinterpret_cast<C*>(device.thread_scratch(sizes.bytes(rows, columns))(0));
  device.parallel(chunks.chunks(), [&](Index chunk, int) {
    C* const begin = partial + chunk * 2 * set;
    const Sums sums = sums_at(begin), segment = sums_at(begin + set);
    std::fill_n(begin, set, C(0));
    for (Index first = chunks.first(chunk); first < chunks.last(chunk); first += segment_rows) {
      std::fill_n(begin + set, set, C(0));
      for (Index t = first; t < std::min(first + segment_rows, chunks.last(chunk)); ++t) row(t, segment.array);
      add_to(segment, sums);
    }
  });
  for (Index chunk = 0; chunk < chunks.chunks(); ++chunk) add_to(sums_at(partial + chunk * 2 * set), total);
}

}  // namespace detail

/// Upper bound on the scratch of a norm's backward pass in bytes per thread, for up to `rows` rows and `vectors`
/// vectors of parameters.
template <ComputeScalar C>
constexpr std::size_t norm_thread_scratch(const Device&, Index rows, Index columns, int vectors) {
  return detail::ColumnSums<C>(columns, vectors).bytes(rows, columns);
}

/// y = x · inverse · gain with inverse = 1 / sqrt(mean(x²) + epsilon); y may be x, and gain may be null.
template <ComputeScalar C, StorageScalar S>
void rms_norm(Device& device, Input<C> x, const S* gain, double epsilon, MatrixView<C> y, C* inverse) {
  const Index columns = x.columns;
  detail::for_rows(device, x.rows, columns, [&](Index first, Index last) {
    for (Index t = first; t < last; ++t) {
      const C* from = x.row(t);
      C* to = y.row(t);
      const C square = detail::sweep_sum<C>(columns, [=]<class P>(Index i, P sum) {
        const P value = load<P>(from + i);
        return fma(value, value, sum);
      });
      const C scale = static_cast<C>(1 / std::sqrt(double(square) / double(columns) + epsilon));
      inverse[t] = scale;
      if (gain == nullptr) {
        detail::sweep<C>(columns, [=]<class P>(Index i) { store(to + i, load<P>(from + i) * scale); });
        continue;
      }
      detail::sweep<C>(columns,
                       [=]<class P>(Index i) { store(to + i, load<P>(from + i) * scale * load_widened<P>(gain + i)); });
    }
  });
}

namespace detail {

/// rms_norm_backward() for a gain of ones.
template <ComputeScalar C>
void rms_norm_backward_without_gain(Device& device, Input<C> x, const C* inverse, Input<C> dy, MatrixView<C> dx) {
  const Index columns = x.columns;
  for_rows(device, x.rows, columns, [&](Index first, Index last) {
    for (Index t = first; t < last; ++t) {
      const C* row = x.row(t);
      const C* gradient = dy.row(t);
      C* to = dx.row(t);
      const C dot = sweep_sum<C>(
          columns, [=]<class P>(Index i, P sum) { return fma(load<P>(gradient + i), load<P>(row + i), sum); });
      const C scale = inverse[t];
      const C x_factor = -(dot / static_cast<C>(columns)) * scale * scale * scale;
      sweep<C>(columns, [=]<class P>(Index i) {
        const P sum = fma(load<P>(gradient + i), scale, load<P>(to + i));
        store(to + i, fma(load<P>(row + i), x_factor, sum));
      });
    }
  });
}

}  // namespace detail

/// Accumulates into dx and dgain.
template <ComputeScalar C, StorageScalar S>
void rms_norm_backward(Device& device, Input<C> x, const S* gain, const C* inverse, Input<C> dy, MatrixView<C> dx,
                       C* dgain) {
  if (gain == nullptr) return detail::rms_norm_backward_without_gain(device, x, inverse, dy, dx);
  const Index columns = x.columns;
  detail::for_rows_with_column_sums<C, 1>(device, x.rows, columns, {dgain}, [&](Index t, C* const* sums) {
    const C* row = x.row(t);
    const C* gradient = dy.row(t);
    C* to = dx.row(t);
    C* gain_sum = sums[0];
    const C dot = detail::sweep_sum<C>(columns, [=]<class P>(Index i, P sum) {
      return fma(load<P>(gradient + i) * load_widened<P>(gain + i), load<P>(row + i), sum);
    });
    const C scale = inverse[t];
    const C x_factor = -(dot / static_cast<C>(columns)) * scale * scale * scale;
    detail::sweep<C>(columns, [=]<class P>(Index i) {
      const P value = load<P>(row + i);
      const P scaled = load<P>(gradient + i) * scale;
      const P sum = fma(scaled, load_widened<P>(gain + i), load<P>(to + i));
      store(to + i, fma(value, x_factor, sum));
      store(gain_sum + i, fma(scaled, value, load<P>(gain_sum + i)));
    });
  });
}

/// y = (x - mean) · inverse · gain + bias with inverse = 1 / sqrt(mean((x - mean)²) + epsilon); y may be x.
template <ComputeScalar C, StorageScalar S>
void layer_norm(Device& device, Input<C> x, const S* gain, const S* bias, double epsilon, MatrixView<C> y, C* mean,
                C* inverse) {
  const Index columns = x.columns;
  detail::for_rows(device, x.rows, columns, [&](Index first, Index last) {
    for (Index t = first; t < last; ++t) {
      const C* from = x.row(t);
      C* to = y.row(t);
      const C average =
          detail::sweep_sum<C>(columns, [=]<class P>(Index i, P sum) { return sum + load<P>(from + i); }) /
          static_cast<C>(columns);
      const C square = detail::sweep_sum<C>(columns, [=]<class P>(Index i, P sum) {
        const P centred = load<P>(from + i) - average;
        return fma(centred, centred, sum);
      });
      const C scale = static_cast<C>(1 / std::sqrt(double(square) / double(columns) + epsilon));
      mean[t] = average;
      inverse[t] = scale;
      detail::sweep<C>(columns, [=]<class P>(Index i) {
        const P normalised = (load<P>(from + i) - average) * scale;
        store(to + i, fma(normalised, load_widened<P>(gain + i), load_widened<P>(bias + i)));
      });
    }
  });
}

/// Accumulates into dx, dgain and dbias.
template <ComputeScalar C, StorageScalar S>
void layer_norm_backward(Device& device, Input<C> x, const S* gain, const C* mean, const C* inverse, Input<C> dy,
                         MatrixView<C> dx, C* dgain, C* dbias) {
  const Index columns = x.columns;
  detail::for_rows_with_column_sums<C, 2>(device, x.rows, columns, {dgain, dbias}, [&](Index t, C* const* sums) {
    const C* row = x.row(t);
    const C* gradient = dy.row(t);
    C* to = dx.row(t);
    C* gain_sum = sums[0];
    C* bias_sum = sums[1];
    const C average = mean[t], scale = inverse[t];
    const C total = detail::sweep_sum<C>(
        columns, [=]<class P>(Index i, P sum) { return fma(load<P>(gradient + i), load_widened<P>(gain + i), sum); });
    const C dot = detail::sweep_sum<C>(columns, [=]<class P>(Index i, P sum) {
      const P centred = load<P>(row + i) - average;
      return fma(load<P>(gradient + i) * load_widened<P>(gain + i), centred, sum);
    });
    const C shift = -(total / static_cast<C>(columns)) * scale;
    const C x_factor = -(dot / static_cast<C>(columns)) * scale * scale * scale;
    detail::sweep<C>(columns, [=]<class P>(Index i) {
      const P centred = load<P>(row + i) - average;
      const P scaled = load<P>(gradient + i) * scale;
      const P sum = fma(scaled, load_widened<P>(gain + i), load<P>(to + i) + shift);
      store(to + i, fma(centred, x_factor, sum));
      store(gain_sum + i, fma(scaled, centred, load<P>(gain_sum + i)));
      store(bias_sum + i, load<P>(bias_sum + i) + load<P>(gradient + i));
    });
  });
}

namespace detail {

/// x += rows and kept = x, if `rows` and `kept` have data.
template <ComputeScalar C>
void add_residual(Device& device, const Joined<C, C>& joined) {
  if (joined.rows.data != nullptr) add(device, joined.rows, joined.x);
  if (joined.kept.data != nullptr) copy(device, joined.x, joined.kept);
}

}  // namespace detail

/// x += rows, kept = x, and rms_norm()
template <ComputeScalar C, StorageScalar S>
void add_rms_norm(Device& device, const Joined<C, C>& joined, const S* gain, double epsilon, MatrixView<C> y,
                  C* inverse) {
  detail::add_residual(device, joined);
  rms_norm(device, joined.x, gain, epsilon, y, inverse);
}

/// x += rows, kept = x, and layer_norm()
template <ComputeScalar C, StorageScalar S>
void add_layer_norm(Device& device, const Joined<C, C>& joined, const S* gain, const S* bias, double epsilon,
                    MatrixView<C> y, C* mean, C* inverse) {
  detail::add_residual(device, joined);
  layer_norm(device, joined.x, gain, bias, epsilon, y, mean, inverse);
}

}  // namespace moe_mamba::inline v0_2::cpu
