#pragma once

#include <algorithm>
#include <cstddef>
#include <numbers>

#include "moe_mamba/cpu/packet_shuffle.hpp"
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
/// A state update of 8 channels takes 17 multiplications or multiply-adds (8 to run forward, 9 to run back), 8.5 cycles of
/// the two multipliers of an AVX2 machine. 22 were measured (Zen 3, N = 16): 7 forward, 8 back, 2 to 3 for the sums over
/// lanes, and 4 to 5 for what is done once a step whatever N (softplus, silu and their slopes).
namespace moe_mamba::cpu {

namespace detail {

/// Blocks of channels that share a sum over lanes, and groups of blocks that share a task.
inline constexpr Index scan_group_blocks = 8;
inline constexpr Index scan_task_groups = 2;

/// Rows ahead of the one at work that are asked for; they lie too far apart for the machine to foresee.
inline constexpr Index scan_rows_ahead = 8;

template <ComputeScalar C>
inline constexpr Index scan_backward_channels = (scan_task_groups * scan_group_blocks) * (lanes<Packet<C>>);

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

/// State n of a block over a whole piece, from `h` in front of it to the returned value behind it. keep(t, decay, h)
/// gets what each step comes to. Two rows behind the last step are read, of anything.
template <PacketLike P, int Columns, class Keep>
[[gnu::always_inline]] inline P scan_state(ScanPiece<P, Columns> piece, Index n, P h, const Keep& keep) {
  using C = scalar_of<P>;
  using Decay = DecayPower<P>;
  const P rate = load<P>(piece.rates + n * lanes<P>);
  const C* b = piece.b.data + n;
  const C* c = piece.c.data + n;
  const auto split = [&](Index t) { return Decay::split(load<P>(piece.delta(t)) * rate); };
  // Three steps at a time: the power for step t + 2 is split, that for t + 1 begun, that for t finished and used.
  Decay current = split(0), next = split(1);
  P begun = current.begin();
  for (Index t = 0; t < piece.steps; ++t, b += piece.b.stride, c += piece.c.stride) {
    const Decay later = split(t + 2);
    const P decay = current.finish(begun);
    begun = next.begin();
    h = scan_update(decay, h, load<P>(piece.drive(t)), *b);
    store(piece.sum(t), fma(h, *c, load<P>(piece.sum(t))));
    keep(t, decay, h);
    current = next;
    next = later;
  }
  return h;
}

/// What is kept of one state's way through a piece, and the sums for it over blocks.
template <PacketLike P>
struct ScanTrace {
  using C = scalar_of<P>;
  static constexpr Index row_size = 4 * lanes<P>;

  C* rows = nullptr;  // (steps + 1, 4, lanes)

  C* decay(Index t) const { return rows + t * row_size; }              // exp(Δ A)
  C* before(Index t) const { return rows + t * row_size + lanes<P>; }  // the state in front of step t, behind t - 1
  C* db(Index t) const { return rows + t * row_size + 2 * lanes<P>; }  // Σ g Δ u
  C* dc(Index t) const { return rows + t * row_size + 3 * lanes<P>; }  // Σ dp h
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
  ScanTrace<Packet<C>> trace;

  ScanBackwardMemory(Arena& arena, Index states) {
    constexpr Index steps = scan_checkpoint_interval;
    for (Block& block : blocks) {
      block.rows = arena.take<C>((steps + 2) * 6 * width);
      block.slopes = arena.take<C>(steps * 2 * width);
      block.rates = arena.take<C>(states * width);
      block.rate_sums = arena.take<C>(states * width);
      block.carried = arena.take<C>(states * width);
    }
    trace.rows = arena.take<C>((steps + 1) * trace.row_size);
  }
};

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
      store(block.rate_sums + n * width, P(0));
      store(block.carried + n * width, dstate == nullptr ? P(0) : lane.load_channels(dstate + n * channels_));
    }
    const Index at = sequence_ * channels_ + channel;
    lane.store_channels(partial_.dd + at, 0);
    lane.store_channels(partial_.dbias + at, 0);
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
        store(memory_.trace.db(t), P(0));
        store(memory_.trace.dc(t), P(0));
      }
      each_block([&](Block& block, Index channel, auto lane) {
        go_and_return(block, piece_of(block, row, steps), n, lane.load_channels(checkpoint + n * channels_ + channel));
      });
      const Index at = (task_ * States + n) * length + piece * interval;
      add_lanes(memory_.trace.db(0), partial_.db + at, steps, first_group);
      add_lanes(memory_.trace.dc(0), partial_.dc + at, steps, first_group);
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
      const Index ahead = std::min(row + t + scan_rows_ahead, scan_.shape.tokens() - 1);
      for (const auto* input : {&scan_.delta, &scan_.u, &scan_.z, &scan_.dy}) {
        prefetch<false>(input->row(ahead) + channel);
      }
      const auto delta = softplus_with_derivative(lane.load_channels(scan_.delta.row(row + t) + channel) + bias);
      const P u = lane.load_channels(scan_.u.row(row + t) + channel);
      const auto gate = silu_with_derivative(lane.load_channels(scan_.z.row(row + t) + channel));
      const P dy = lane.load_channels(scan_.dy.row(row + t) + channel);
      store(piece.delta(t), delta.value);
      store(piece.drive(t), delta.value * u);
      store(piece.sum(t), d * u);
      store(piece.dp(t), dy * gate.value);
      store(piece.input_sum(t), P(0));
      store(piece.decay_sum(t), P(0));
      store(block.slopes + 2 * t * width, delta.derivative);
      store(block.slopes + (2 * t + 1) * width, dy * gate.derivative);
    }
    for (Index t = steps; t < steps + 2; ++t) store(piece.delta(t), P(0));
  }

  /// State n over a piece, from `initial` to the last step, and back to the first.
  void go_and_return(Block& block, const ScanBackwardPiece<P> piece, Index n, const P initial) const {
    const ScanTrace<P> trace = memory_.trace;  // a copy, which stores of packets cannot change
    store(trace.before(0), initial);
    P after = scan_state<P, 6>(piece, n, initial, [trace](Index t, const P& decay, const P& h) {
      store(trace.decay(t), decay);
      store(trace.before(t + 1), h);
    });
    const P rate = load<P>(block.rates + n * width);
    P carried = load<P>(block.carried + n * width), rate_sum = load<P>(block.rate_sums + n * width);
    const C* b = piece.b.row(piece.steps - 1) + n;
    const C* c = piece.c.row(piece.steps - 1) + n;
    for (Index t = piece.steps - 1; t >= 0; --t, b -= piece.b.stride, c -= piece.c.stride) {
      const P before = load<P>(trace.before(t)), dp = load<P>(piece.dp(t));
      const P decay = load<P>(trace.decay(t)), own = dp * *c;
      const P g = own + carried;
      store(trace.dc(t), fma(dp, after, load<P>(trace.dc(t))));
      store(trace.db(t), fma(g, load<P>(piece.drive(t)), load<P>(trace.db(t))));
      store(piece.input_sum(t), fma(g, *b, load<P>(piece.input_sum(t))));
      carried = fma(decay, carried, decay * own);  // decay g, in one instruction from step to step
      const P through = carried * before;
      store(piece.decay_sum(t), fma(through, rate, load<P>(piece.decay_sum(t))));
      rate_sum = fma(through, load<P>(piece.delta(t)), rate_sum);
      after = before;
    }
    store(block.carried + n * width, carried);
    store(block.rate_sums + n * width, rate_sum);
  }

  /// What needs the sums over the states.
  template <class Lanes>
  void conclude(const Block& block, Index row, Index steps, Index channel, const Lanes& lane) const {
    const P d = lane.load_parameters(scan_.d + channel), ln2 = P(std::numbers::ln2_v<C>);
    const auto piece = piece_of(block, row, steps);
    const Index at = sequence_ * channels_ + channel;
    P dd = lane.load_channels(partial_.dd + at), dbias = lane.load_channels(partial_.dbias + at);
    for (Index t = 0; t < steps; ++t) {
      const Index ahead = std::min(row + t + scan_rows_ahead, scan_.shape.tokens() - 1);
      for (const auto* output : {&scan_.ddelta, &scan_.du, &scan_.dz}) prefetch<true>(output->row(ahead) + channel);
      const P u = lane.load_channels(scan_.u.row(row + t) + channel), dp = load<P>(piece.dp(t));
      const P input_sum = load<P>(piece.input_sum(t));
      const P ddelta = fma(ln2, load<P>(piece.decay_sum(t)), u * input_sum) * load<P>(block.slopes + 2 * t * width);
      dd = fma(dp, u, dd);
      dbias += ddelta;
      lane.store_channels(scan_.ddelta.row(row + t) + channel, ddelta);
      lane.store_channels(scan_.du.row(row + t) + channel, fma(load<P>(piece.delta(t)), input_sum, d * dp));
      lane.store_channels(scan_.dz.row(row + t) + channel,
                          load<P>(block.slopes + (2 * t + 1) * width) * load<P>(piece.sum(t)));
    }
    lane.store_channels(partial_.dd + at, dd);
    lane.store_channels(partial_.dbias + at, dbias);
  }

  /// sums[t] gets (with `overwrite`, becomes) the sum of the lanes of a column of ScanTrace.
  static void add_lanes(const C* column, C* sums, Index steps, bool overwrite) {
    for (Index t = 0; t < steps; t += width) {
      const Index count = std::min(width, steps - t);
      P rows[array_size<width>];
      unroll<width>([&](auto i) { rows[i] = load<P>(column + (t + i) * ScanTrace<P>::row_size); });
      const P sum = sums_over_lanes(rows);
      if (count == width) {
        store(sums + t, overwrite ? sum : load<P>(sums + t) + sum);
      } else {
        store_partial<P>(sums + t, overwrite ? sum : load_partial<P>(sums + t, count) + sum, count);
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

/// Bytes of scratch that selective_scan and selective_scan_backward need at most: about 2 (E / 64 + 1) values of type C
/// an element of B, and one an element of A_log and sequence.
template <ComputeScalar C>
std::size_t selective_scan_scratch(const Device& device, Shape shape, Index channels, Index states) {
  if (shape.lengths != nullptr) {
    return largest_run_scratch(shape,
                               [&](Shape run) { return selective_scan_scratch<C>(device, run, channels, states); });
  }
  Arena counting, thread;
  (void)detail::ScanPartialSums<C>(counting, shape, channels, states);
  (void)detail::ScanBackwardMemory<C>(thread, states);
  if (thread.used() > Device::scratch_bytes) {
    (void)counting.take<std::byte>(static_cast<Index>(thread.used()) * device.threads());
  }
  return counting.used();
}

/// See ops/selective_scan.hpp. Nothing is allocated; outputs must not overlap inputs or one another.
///
/// A NaN in an input of a step comes out in the gradients of what that step and the ones before it read.
template <class C, class S, int States>
void selective_scan_backward(Device& device, const SelectiveScanBackward<C, S, States>& scan) {
  if (each_packed_scan(scan, [&](const auto& part) { selective_scan_backward(device, part); })) return;
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
