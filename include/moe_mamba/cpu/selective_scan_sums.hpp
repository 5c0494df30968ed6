#pragma once

#include <algorithm>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/cpu/device.hpp"
#include "moe_mamba/cpu/packet.hpp"
#include "moe_mamba/ops/selective_scan.hpp"

/// Partial gradients of the selective scan's backward pass, and their sums in a fixed order.
namespace moe_mamba::inline v0_2::cpu::detail {

/// Blocks of channels that share a sum over lanes, and groups of blocks that share a task.
inline constexpr Index scan_group_blocks = 8;
inline constexpr Index scan_task_groups = 2;

template <ComputeScalar C>
inline constexpr Index scan_backward_channels = (scan_task_groups * scan_group_blocks) * (lanes<Packet<C>>);

constexpr Index scan_tasks(Index channels, Index task_channels) {
  return (channels + task_channels - 1) / task_channels;
}

/// The tasks' partial sums; the index of a task is sequence · tasks + range of channels.
template <class C>
struct ScanPartialSums {
  C* db;      // (B, tasks, N, L)
  C* dc;      // (B, tasks, N, L)
  C* da_log;  // (B, E, N)
  C* dd;      // (B, E)
  C* dbias;   // (B, E)

  ScanPartialSums(Arena& arena, Shape shape, Index channels, Index states) {
    const Index tasks = scan_tasks(channels, scan_backward_channels<C>);
    db = arena.take<C>(shape.tokens() * tasks * states);
    dc = arena.take<C>(shape.tokens() * tasks * states);
    da_log = arena.take<C>(shape.batch * channels * states);
    dd = arena.take<C>(shape.batch * channels);
    dbias = arena.take<C>(shape.batch * channels);
  }
};

/// db and dc become the sums over tasks; the sums over sequences are added to da_log, dd and ddelta_bias. Each sum has
/// a fixed order.
template <class C, class S, int States>
void add_partial_sums(Device& device, const SelectiveScanBackward<C, S, States>& scan,
                      const ScanPartialSums<C>& partial) {
  const Index channels = scan.du.columns, length = scan.shape.length, batch = scan.shape.batch;
  const Index tasks = scan_tasks(channels, scan_backward_channels<C>);
  constexpr Index rows = 64, columns = 64;
  const Index row_tasks = (length + rows - 1) / rows, column_tasks = (channels + columns - 1) / columns;
  const auto sum_over_tasks = [&](const C* parts, MatrixView<C> to, Index sequence, Index first, Index end) {
    for (Index n = 0; n < States; ++n) {
      for (Index t = first; t < end; ++t) {
        C sum = 0;
        for (Index task = 0; task < tasks; ++task) {
          sum += parts[((sequence * tasks + task) * States + n) * length + t];
        }
        to(sequence * length + t, n) = sum;
      }
    }
  };
  const auto sum_over_sequences = [&](const C* parts, C* to, Index first, Index end, Index size) {
    for (Index i = first; i < end; ++i) {
      C sum = 0;
      for (Index sequence = 0; sequence < batch; ++sequence) sum += parts[sequence * size + i];
      to[i] += sum;
    }
  };
  device.parallel(batch * row_tasks + column_tasks, [&](Index task, int) {
    if (task < batch * row_tasks) {
      const Index sequence = task / row_tasks, first = task % row_tasks * rows, end = std::min(length, first + rows);
      sum_over_tasks(partial.db, scan.db, sequence, first, end);
      sum_over_tasks(partial.dc, scan.dc, sequence, first, end);
    } else {
      const Index first = (task - batch * row_tasks) * columns, end = std::min(channels, first + columns);
      sum_over_sequences(partial.da_log, scan.da_log, first * States, end * States, channels * States);
      sum_over_sequences(partial.dd, scan.dd, first, end, channels);
      sum_over_sequences(partial.dbias, scan.ddelta_bias, first, end, channels);
    }
  });
}

}  // namespace moe_mamba::inline v0_2::cpu::detail
