#pragma once

#include <algorithm>
#include <cstddef>
#include <numbers>

#include "moe_mamba/cpu/selective_scan.hpp"

/// The way back through the selective scan on the CPU. See reference::selective_scan_backward for the formulas.
///
/// A task takes a fixed range of channels of one sequence. It goes from the last piece of scan_checkpoint_interval
/// steps to the first. In a piece, state after state, each block of channels runs forward from the checkpoint, keeping
/// decays and states of that one n, and then back. So nothing that is kept is larger than a row of the piece, and all
/// of it stays in the first two cache levels whatever the state size.
///
/// The gradients of B and C are sums over channels. They are summed over the blocks of a group lane by lane, then over
/// the lanes, then over the groups of a task, then, after all tasks are done, over tasks in their order; those of
/// parameters are summed over time by a task and then over sequences in their order. So results do not depend on the
/// number of threads.
///
/// A state update of 8 channels takes about 16 multiplications or multiply-adds (7 to run forward, 8 to run back, one
/// for the sums over lanes), 8 cycles on AVX2.
namespace moe_mamba::cpu {

namespace detail {

/// Blocks of channels that share a sum over lanes, and groups of blocks that share a task.
inline constexpr Index scan_group_blocks = 4;
inline constexpr Index scan_task_groups = 4;

template <ComputeScalar C>
inline constexpr Index scan_backward_channels = scan_task_groups* scan_group_blocks* lanes<Packet<C>>;

constexpr Index scan_tasks(Index channels, Index task_channels) {
  return (channels + task_channels - 1) / task_channels;
}

/// What the tasks hand to the sums at the end; index of a task: sequence · tasks + range of channels.
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

/// The rows of a ScanPiece on the way back, with three columns more.
template <PacketLike P>
struct ScanBackwardPiece : ScanPiece<P, 6> {
  using C = scalar_of<P>;
  C* dp(Index t) const { return this->delta(t) + 3 * lanes<P>; }         // dy silu(z)
  C* input_sum(Index t) const { return this->delta(t) + 4 * lanes<P>; }  // gets Σ_n g B
  C* decay_sum(Index t) const { return this->delta(t) + 5 * lanes<P>; }  // gets Σ_n g decay h A, in units of ln 2
};

/// What a thread needs of its own.
template <class C>
struct ScanBackwardMemory {
  static constexpr Index width = lanes<Packet<C>>;

  struct Block {
    C* rows;       // of a ScanBackwardPiece
    C* slopes;     // (steps, 2, lanes): sigmoid(delta + bias), dy silu'(z)
    C* rates;      // (N, lanes)
    C* rate_sums;  // (N, lanes): Σ_t g Δ decay h
    C* carried;    // (N, lanes): the gradient that comes from later steps
  } blocks[scan_group_blocks];
  C* one_state;  // (steps + 1, 4, lanes), of one n at a time; see below

  C* decay(Index t) const { return one_state + 4 * t * width; }         // exp(Δ A)
  C* before(Index t) const { return one_state + (4 * t + 1) * width; }  // the state in front of step t, or behind t - 1
  C* db(Index t) const { return one_state + (4 * t + 2) * width; }      // summed over blocks
  C* dc(Index t) const { return one_state + (4 * t + 3) * width; }

  ScanBackwardMemory(Arena& arena, Index states) {
    constexpr Index steps = scan_checkpoint_interval;
    for (Block& block : blocks) {
      block.rows = arena.take<C>((steps + 2) * 6 * width);
      block.slopes = arena.take<C>(steps * 2 * width);
      block.rates = arena.take<C>(states * width);
      block.rate_sums = arena.take<C>(states * width);
      block.carried = arena.take<C>(states * width);
    }
    one_state = arena.take<C>((steps + 1) * 4 * width);
  }
};

/// The sum of the lanes of each of lanes<P> packets that lie `stride` elements apart.
template <PacketLike P>
[[gnu::always_inline]] inline P sums_over_lanes(const scalar_of<P>* from, Index stride) {
  constexpr Index width = lanes<P>;
  P packets[width];
  unrolled<width>([&](auto i) __attribute__((always_inline)) { packets[i] = load<P>(from + i * stride); });
  transpose(packets);
  unrolled<width - 1>([&](auto i) __attribute__((always_inline)) { packets[0] = add(packets[0], packets[i + 1]); });
  return packets[0];
}

/// One task of the backward pass.
template <class C, class S, int States>
class ScanBackwardTask {
  using P = Packet<C>;
  using Memory = ScanBackwardMemory<C>;
  using Block = typename Memory::Block;
  static constexpr Index width = lanes<P>;
  static constexpr Index interval = scan_checkpoint_interval;

 public:
  ScanBackwardTask(const SelectiveScanBackward<C, S, States>& scan, const ScanPartialSums<C>& partial, Index task,
                   Arena memory)
      : scan_(scan),
        partial_(partial),
        memory_(memory, States),
        channels_(scan.du.columns),
        task_(task),
        sequence_(task / scan_tasks(channels_, scan_backward_channels<C>)) {}

  void run() {
    const Index length = scan_.shape.length;
    const Index first = task_ % scan_tasks(channels_, scan_backward_channels<C>) * scan_backward_channels<C>;
    const Index end = std::min(channels_, first + scan_backward_channels<C>);
    for (Index group = first; group < end; group += scan_group_blocks * width) {
      first_ = group;
      blocks_ = std::min(scan_group_blocks, (end - group + width - 1) / width);
      each_block([&](Block& block, Index channel, auto lane) { start(block, channel, lane); });
      for (Index piece = scan_checkpoints(length) - 1; piece >= 0; --piece) {
        run_piece(piece, std::min(interval, length - piece * interval), group == first);
      }
      each_block([&](Block& block, Index channel, auto lane) { finish(block, channel, lane); });
    }
  }

 private:
  template <class Body>
  void each_block(const Body& body) {
    for (Index block = 0; block < blocks_; ++block) {
      const Index channel = first_ + block * width;
      with_channel_lanes<P>(channel, channels_, [&](auto lane) { body(memory_.blocks[block], channel, lane); });
    }
  }

  template <class Lanes>
  void start(Block& block, Index channel, const Lanes& lane) const {
    decay_rates<P, States>(scan_.a_log + channel * States, std::min(width, channels_ - channel), block.rates);
    const C* const dstate = scan_.dstate ? scan_.dstate.sequence(sequence_) + channel : nullptr;
    for (Index n = 0; n < States; ++n) {
      store<P>(block.rate_sums + n * width, zero<P>());
      store<P>(block.carried + n * width, dstate == nullptr ? zero<P>() : lane.load_channels(dstate + n * channels_));
    }
    const Index at = sequence_ * channels_ + channel;
    lane.store_channels(partial_.dd + at, zero<P>());
    lane.store_channels(partial_.dbias + at, zero<P>());
  }

  template <class Lanes>
  void finish(const Block& block, Index channel, const Lanes& lane) const {
    C* const dstate = scan_.dstate ? scan_.dstate.sequence(sequence_) + channel : nullptr;
    C* const da_log = partial_.da_log + (sequence_ * channels_ + channel) * States;
    const Index count = std::min(width, channels_ - channel);
    for (Index n = 0; n < States; ++n) {
      if (dstate != nullptr) lane.store_channels(dstate + n * channels_, load<P>(block.carried + n * width));
      for (Index i = 0; i < count; ++i) {  // dA/da_log = A
        da_log[i * States + n] = block.rates[n * width + i] * std::numbers::ln2_v<C> * block.rate_sums[n * width + i];
      }
    }
  }

  void run_piece(Index piece, Index steps, bool first_group) {
    const Index length = scan_.shape.length, row = sequence_ * length + piece * interval;
    const C* const checkpoint = scan_.checkpoints + (sequence_ * scan_checkpoints(length) + piece) * States * channels_;
    each_block([&](Block& block, Index channel, auto lane) { prepare(block, row, steps, channel, lane); });
    for (Index n = 0; n < States; ++n) {
      for (Index t = 0; t < interval; ++t) {
        store<P>(memory_.db(t), zero<P>());
        store<P>(memory_.dc(t), zero<P>());
      }
      each_block([&](Block& block, Index channel, auto lane) {
        const P before = lane.load_channels(checkpoint + n * channels_ + channel);
        store<P>(memory_.before(0), before);
        const auto rows = piece_of(block, row, steps);
        scan_state<P, 6>(
            rows, n, before, [&](Index t, const P& decay, const P& h) __attribute__((always_inline)) {
              store<P>(memory_.decay(t), decay);
              store<P>(memory_.before(t + 1), h);
            });
        walk_back(block, rows, n);
      });
      const Index at = (task_ * States + n) * length + piece * interval;
      add_lanes(memory_.db(0), partial_.db + at, steps, first_group);
      add_lanes(memory_.dc(0), partial_.dc + at, steps, first_group);
    }
    each_block([&](Block& block, Index channel, auto lane) { conclude(block, row, steps, channel, lane); });
  }

  ScanBackwardPiece<P> piece_of(const Block& block, Index row, Index steps) const {
    return {{steps, block.rates, block.rows, scan_.b.row_block(row, steps), scan_.c.row_block(row, steps)}};
  }

  /// What does not depend on the states.
  template <class Lanes>
  void prepare(Block& block, Index row, Index steps, Index channel, const Lanes& lane) const {
    const auto piece = piece_of(block, row, steps);
    const P bias = lane.load_parameters(scan_.delta_bias + channel), d = lane.load_parameters(scan_.d + channel);
    for (Index t = 0; t < steps; ++t) {
      const auto delta = softplus_with_derivative(add(lane.load_channels(scan_.delta.row(row + t) + channel), bias));
      const P u = lane.load_channels(scan_.u.row(row + t) + channel);
      const auto gate = silu_with_derivative(lane.load_channels(scan_.z.row(row + t) + channel));
      const P dy = lane.load_channels(scan_.dy.row(row + t) + channel);
      store<P>(piece.delta(t), delta.value);
      store<P>(piece.drive(t), mul(delta.value, u));
      store<P>(piece.sum(t), mul(d, u));
      store<P>(piece.dp(t), mul(dy, gate.value));
      store<P>(piece.input_sum(t), zero<P>());
      store<P>(piece.decay_sum(t), zero<P>());
      store<P>(block.slopes + 2 * t * width, delta.derivative);
      store<P>(block.slopes + (2 * t + 1) * width, mul(dy, gate.derivative));
    }
    for (Index t = steps; t < steps + 2; ++t) store<P>(piece.delta(t), zero<P>());
  }

  /// From the last step of a piece to the first, for state n.
  [[gnu::always_inline]] void walk_back(Block& block, const ScanBackwardPiece<P>& piece, Index n) const {
    const P rate = load<P>(block.rates + n * width);
    P carried = load<P>(block.carried + n * width), rate_sum = load<P>(block.rate_sums + n * width);
    P after = load<P>(memory_.before(piece.steps));
    const C* b = piece.b.row(piece.steps - 1) + n;
    const C* c = piece.c.row(piece.steps - 1) + n;
    for (Index t = piece.steps - 1; t >= 0; --t, b -= piece.b.stride, c -= piece.c.stride) {
      const P before = load<P>(memory_.before(t)), dp = load<P>(piece.dp(t));
      const P g = fma(dp, broadcast<P>(*c), carried);
      store<P>(memory_.dc(t), fma(dp, after, load<P>(memory_.dc(t))));
      store<P>(memory_.db(t), fma(g, load<P>(piece.drive(t)), load<P>(memory_.db(t))));
      store<P>(piece.input_sum(t), fma(g, broadcast<P>(*b), load<P>(piece.input_sum(t))));
      carried = mul(g, load<P>(memory_.decay(t)));
      const P through = mul(carried, before);
      store<P>(piece.decay_sum(t), fma(through, rate, load<P>(piece.decay_sum(t))));
      rate_sum = fma(through, load<P>(piece.delta(t)), rate_sum);
      after = before;
    }
    store<P>(block.carried + n * width, carried);
    store<P>(block.rate_sums + n * width, rate_sum);
  }

  /// What needs the sums over the states.
  template <class Lanes>
  void conclude(const Block& block, Index row, Index steps, Index channel, const Lanes& lane) const {
    const P d = lane.load_parameters(scan_.d + channel), ln2 = broadcast<P>(std::numbers::ln2_v<C>);
    const auto piece = piece_of(block, row, steps);
    const Index at = sequence_ * channels_ + channel;
    P dd = lane.load_channels(partial_.dd + at), dbias = lane.load_channels(partial_.dbias + at);
    for (Index t = 0; t < steps; ++t) {
      const P u = lane.load_channels(scan_.u.row(row + t) + channel), dp = load<P>(piece.dp(t));
      const P input_sum = load<P>(piece.input_sum(t));
      const P ddelta =
          mul(fma(ln2, load<P>(piece.decay_sum(t)), mul(u, input_sum)), load<P>(block.slopes + 2 * t * width));
      dd = fma(dp, u, dd);
      dbias = add(dbias, ddelta);
      lane.store_channels(scan_.ddelta.row(row + t) + channel, ddelta);
      lane.store_channels(scan_.du.row(row + t) + channel, fma(load<P>(piece.delta(t)), input_sum, mul(d, dp)));
      lane.store_channels(scan_.dz.row(row + t) + channel,
                          mul(load<P>(block.slopes + (2 * t + 1) * width), load<P>(piece.sum(t))));
    }
    lane.store_channels(partial_.dd + at, dd);
    lane.store_channels(partial_.dbias + at, dbias);
  }

  /// sums[t] gets (with `overwrite`, becomes) the sum of the lanes of a column of ScanBackwardMemory::one_state.
  static void add_lanes(const C* column, C* sums, Index steps, bool overwrite) {
    for (Index t = 0; t < steps; t += width) {
      const Index count = std::min(width, steps - t);
      const P sum = sums_over_lanes<P>(column + 4 * t * width, 4 * width);
      if (count == width) {
        store<P>(sums + t, overwrite ? sum : add(load<P>(sums + t), sum));
      } else {
        store_partial<P>(sums + t, overwrite ? sum : add(load_partial<P>(sums + t, count), sum), count);
      }
    }
  }

  const SelectiveScanBackward<C, S, States>& scan_;
  const ScanPartialSums<C>& partial_;
  Memory memory_;
  Index channels_;
  Index task_;
  Index sequence_;
  Index first_ = 0;   // channel of the group at work
  Index blocks_ = 0;  // of that group
};

}  // namespace detail

/// Bytes of scratch that selective_scan and selective_scan_backward need at most, for either compute type: about
/// 16 (E / 64 + 1) bytes an element of B, and 8 an element of A_log and sequence.
inline std::size_t selective_scan_scratch(const Device& device, Shape shape, Index channels, Index states) {
  const auto bytes = [&]<class C>(C) {
    Arena counting, thread;
    (void)detail::ScanPartialSums<C>(counting, shape, channels, states);
    (void)detail::ScanBackwardMemory<C>(thread, states);
    if (thread.used() > Device::scratch_bytes) {
      (void)counting.take<std::byte>(static_cast<Index>(thread.used()) * device.threads());
    }
    return counting.used();
  };
  return std::max(bytes(float()), bytes(double()));
}

/// See ops/selective_scan.hpp. Nothing is allocated; outputs must not overlap inputs or one another.
///
/// A NaN in an input of a step comes out in the gradients of what that step and the ones before it read.
template <class C, class S, int States>
void selective_scan_backward(Device& device, const SelectiveScanBackward<C, S, States>& scan) {
  const Index channels = scan.du.columns, length = scan.shape.length, batch = scan.shape.batch;
  if (batch == 0 || length == 0 || channels == 0) return;
  Arena arena = scan.scratch;
  const detail::ScanPartialSums<C> partial(arena, scan.shape, channels, States);
  const Index tasks = detail::scan_tasks(channels, detail::scan_backward_channels<C>);

  Arena counting;
  (void)detail::ScanBackwardMemory<C>(counting, States);
  const bool fits = counting.used() <= Device::scratch_bytes;
  std::byte* const own = fits ? nullptr : arena.take<std::byte>(static_cast<Index>(counting.used()) * device.threads());
  device.parallel(batch * tasks, [&](Index task, int thread) {
    std::byte* const memory = fits ? device.scratch(thread) : own + counting.used() * static_cast<std::size_t>(thread);
    detail::ScanBackwardTask<C, S, States>(scan, partial, task, Arena(memory)).run();
  });

  // The sums over tasks and over sequences, each in one order.
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

}  // namespace moe_mamba::cpu
