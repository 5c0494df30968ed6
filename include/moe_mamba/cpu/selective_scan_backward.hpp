#pragma once

#include <algorithm>
#include <cstddef>
#include <numbers>

#include "moe_mamba/cpu/channels.hpp"
#include "moe_mamba/cpu/selective_scan.hpp"
#include "moe_mamba/cpu/selective_scan_chunk.hpp"
#include "moe_mamba/cpu/selective_scan_sums.hpp"

/// The backward pass of the selective scan on the CPU. See reference::selective_scan_backward for the formulas.
///
/// A task takes a fixed range of channels of one sequence and goes through its chunks of scan_checkpoint_interval steps
/// from the last to the first. In a chunk each block of channels takes one state n at a time: it runs forward from the
/// checkpoint, keeping the decays and values of that state, and then backward. So at any time one state of one chunk is
/// kept, which stays in the L1 and L2 caches whatever the state size.
///
/// The gradients of B and C are sums over channels. They are summed over the blocks of a group lane by lane, then over
/// the lanes, then over the groups of a task, then, after all tasks are done, over tasks in their order; those of
/// parameters are summed over time by a task and then over sequences in their order. So results do not depend on the
/// number of threads.
///
/// Per state, 8 channels take 17 multiplications or multiply-adds (8 forward, 9 backward), or 8.5 cycles on the two FMA
/// units of an AVX2 machine. Measured (Zen 3, N = 16): 22 cycles, of which 7 are forward, 8 backward, 2 to 3 the sums
/// over lanes, and 4 to 5 the work per step that does not depend on N (softplus, silu and their derivatives).
namespace moe_mamba::inline v0_2::cpu {

namespace detail {

/// How many rows ahead loops prefetch; the stride of rows defeats the hardware prefetcher.
inline constexpr Index scan_rows_ahead = 8;

/// A step of a block in the backward pass.
template <PacketLike P>
struct ScanBackwardRow : ScanRow<P> {
  P dp;         // dy silu(z), the gradient with respect to the sum
  P input_sum;  // Σ_n g B
  P decay_sum;  // Σ_n g decay h A, in units of ln 2
};

/// Derivatives that are needed once a step's sums are known.
template <PacketLike P>
struct ScanDerivatives {
  P softplus;  // sigmoid(delta + bias)
  P gate;      // dy silu'(z)
};

/// One step of one state: the values kept for the backward pass, and the sums over blocks.
template <PacketLike P>
struct ScanTraceRow {
  P decay;   // exp(Δ A)
  P before;  // the state before this step, and after the one before
  P db;      // Σ g Δ u
  P dc;      // Σ dp h
};

/// A thread's scratch memory.
template <PacketLike P>
struct ScanBackwardMemory {
  struct Block {
    ScanBackwardRow<P>* rows;         // (steps + 2)
    ScanDerivatives<P>* derivatives;  // (steps)
    P* rates;                         // (N)
    P* rate_sums;                     // (N): Σ_t g Δ decay h
    P* carried;                       // (N): the gradient propagated from later steps
  } blocks[scan_group_blocks];
  ScanTraceRow<P>* trace;  // (steps + 1)

  ScanBackwardMemory(Arena& arena, Index states) {
    constexpr Index steps = scan_checkpoint_interval;
    for (Block& block : blocks) {
      block.rows = arena.take<ScanBackwardRow<P>>(steps + 2);
      block.derivatives = arena.take<ScanDerivatives<P>>(steps);
      block.rates = arena.take<P>(states);
      block.rate_sums = arena.take<P>(states);
      block.carried = arena.take<P>(states);
    }
    trace = arena.take<ScanTraceRow<P>>(steps + 1);
  }
};

/// One task of the backward pass.
template <class C, class S, int States>
class ScanBackwardTask {
  using P = Packet<C>;
  using Memory = ScanBackwardMemory<P>;
  using Block = typename Memory::Block;
  using Chunk = ScanChunk<P, ScanBackwardRow<P>>;
  using Trace = ScanTraceRow<P>;
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
      each_block([&](Block& block, Index channel, auto lane) { begin_sequence(block, channel, lane); });
      for (Index chunk = scan_checkpoints(length) - 1; chunk >= 0; --chunk) {
        run_chunk(chunk, std::min(interval, length - chunk * interval), group == first);
      }
      each_block([&](Block& block, Index channel, auto lane) { finish_sequence(block, channel, lane); });
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
  void begin_sequence(Block& block, Index channel, const Lanes& lane) const {
    decay_rates<States>(scan_.a_log + channel * States, std::min(width, channels_ - channel), block.rates);
    const C* const dstate = scan_.dstate ? scan_.dstate.sequence(sequence_) + channel : nullptr;
    for (Index n = 0; n < States; ++n) {
      block.rate_sums[n] = 0;
      block.carried[n] = dstate == nullptr ? P(0) : lane.load_channels(dstate + n * channels_);
    }
    const Index at = sequence_ * channels_ + channel;
    lane.store_channels(partial_.dd + at, 0);
    lane.store_channels(partial_.dbias + at, 0);
  }

  template <class Lanes>
  void finish_sequence(const Block& block, Index channel, const Lanes& lane) const {
    C* const dstate = scan_.dstate ? scan_.dstate.sequence(sequence_) + channel : nullptr;
    C* const da_log = partial_.da_log + (sequence_ * channels_ + channel) * States;
    const Index count = std::min(width, channels_ - channel);
    for (Index n = 0; n < States; ++n) {
      if (dstate != nullptr) lane.store_channels(dstate + n * channels_, block.carried[n]);
      alignas(64) C column[array_size<width>];
      store(column, block.rates[n] * std::numbers::ln2_v<C> * block.rate_sums[n]);  // dA/da_log = A
      for (Index i = 0; i < count; ++i) da_log[i * States + n] = column[i];
    }
  }

  void run_chunk(Index index, Index steps, bool first_group) {
    const Index length = scan_.shape.length, row = sequence_ * length + index * interval;
    const C* const checkpoint = scan_.checkpoints + (sequence_ * scan_checkpoints(length) + index) * States * channels_;
    each_block([&](Block& block, Index channel, auto lane) { begin_chunk(block, row, steps, channel, lane); });
    for (Index n = 0; n < States; ++n) {
      for (Index t = 0; t < interval; ++t) memory_.trace[t].db = memory_.trace[t].dc = 0;
      each_block([&](Block& block, Index channel, auto lane) {
        const P initial = lane.load_channels(checkpoint + n * channels_ + channel);
        run_state(block, chunk_of(block, row, steps), n, initial);
      });
      const Index at = (task_ * States + n) * length + index * interval;
      add_lanes(&Trace::db, partial_.db + at, steps, first_group);
      add_lanes(&Trace::dc, partial_.dc + at, steps, first_group);
    }
    each_block([&](Block& block, Index channel, auto lane) { finish_chunk(block, row, steps, channel, lane); });
  }

  Chunk chunk_of(const Block& block, Index row, Index steps) const {
    return {steps, block.rates, block.rows, scan_.b.row_block(row, steps), scan_.c.row_block(row, steps)};
  }

  /// The part of a chunk that does not depend on the states.
  template <class Lanes>
  void begin_chunk(Block& block, Index row, Index steps, Index channel, const Lanes& lane) const {
    ScanBackwardRow<P>* const rows = block.rows;
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
      rows[t] = {{delta.value, delta.value * u, d * u}, dy * gate.value, 0, 0};
      block.derivatives[t] = {delta.derivative, dy * gate.derivative};
    }
    rows[steps].delta = rows[steps + 1].delta = 0;  // scan_state() reads them
  }

  /// State n over a chunk, from `initial` forward to the last step, and backward to the first.
  void run_state(Block& block, const Chunk chunk, Index n, const P initial) const {
    Trace* const trace = memory_.trace;  // a local copy, which stores of packets cannot alias
    trace[0].before = initial;
    P after = scan_state(chunk, n, initial, [trace](Index t, P decay, P h) {
      trace[t].decay = decay;
      trace[t + 1].before = h;
    });
    const P rate = block.rates[n];
    P carried = block.carried[n], rate_sum = block.rate_sums[n];
    const C* b = chunk.b.row(chunk.steps - 1) + n;
    const C* c = chunk.c.row(chunk.steps - 1) + n;
    for (Index t = chunk.steps - 1; t >= 0; --t, b -= chunk.b.stride, c -= chunk.c.stride) {
      ScanBackwardRow<P>& row = chunk.rows[t];
      const P before = trace[t].before, decay = trace[t].decay;
      const P own = row.dp * *c, g = own + carried;
      trace[t].dc = fma(row.dp, after, trace[t].dc);
      trace[t].db = fma(g, row.delta_u, trace[t].db);
      row.input_sum = fma(g, *b, row.input_sum);
      carried = fma(decay, carried, decay * own);  // decay g, in one instruction from step to step
      const P through = carried * before;
      row.decay_sum = fma(through, rate, row.decay_sum);
      rate_sum = fma(through, row.delta, rate_sum);
      after = before;
    }
    block.carried[n] = carried;
    block.rate_sums[n] = rate_sum;
  }

  /// The part of a chunk that needs the sums over the states.
  template <class Lanes>
  void finish_chunk(const Block& block, Index row, Index steps, Index channel, const Lanes& lane) const {
    const P d = lane.load_parameters(scan_.d + channel);
    const Index at = sequence_ * channels_ + channel;
    P dd = lane.load_channels(partial_.dd + at), dbias = lane.load_channels(partial_.dbias + at);
    for (Index t = 0; t < steps; ++t) {
      const Index ahead = std::min(row + t + scan_rows_ahead, scan_.shape.tokens() - 1);
      for (const auto* output : {&scan_.ddelta, &scan_.du, &scan_.dz}) prefetch<true>(output->row(ahead) + channel);
      const ScanBackwardRow<P>& step = block.rows[t];
      const ScanDerivatives<P>& derivatives = block.derivatives[t];
      const P u = lane.load_channels(scan_.u.row(row + t) + channel);
      const P ddelta = fma(std::numbers::ln2_v<C>, step.decay_sum, u * step.input_sum) * derivatives.softplus;
      dd = fma(step.dp, u, dd);
      dbias += ddelta;
      lane.store_channels(scan_.ddelta.row(row + t) + channel, ddelta);
      lane.store_channels(scan_.du.row(row + t) + channel, fma(step.delta, step.input_sum, d * step.dp));
      lane.store_channels(scan_.dz.row(row + t) + channel, derivatives.gate * step.sum);
    }
    lane.store_channels(partial_.dd + at, dd);
    lane.store_channels(partial_.dbias + at, dbias);
  }

  /// sums[t] gets (with `overwrite`, becomes) the sum of the lanes of a column of the trace.
  void add_lanes(P Trace::*column, C* sums, Index steps, bool overwrite) const {
    for (Index t = 0; t < steps; t += width) {
      const Index count = std::min(width, steps - t);
      P rows[array_size<width>];
      unroll<width>([&](auto i) { rows[i] = memory_.trace[t + i].*column; });
      const P sum = sums_over_lanes(rows);
      if (count == width) {
        store(sums + t, overwrite ? sum : load<P>(sums + t) + sum);
      } else {
        store_partial(sums + t, overwrite ? sum : load_partial<P>(sums + t, count) + sum, count);
      }
    }
  }

  const SelectiveScanBackward<C, S, States>& scan_;
  const ScanPartialSums<C>& partial_;
  Memory memory_;
  Index channels_;
  Index task_;
  Index sequence_;
  Index first_ = 0;   // channel of the current group
  Index blocks_ = 0;  // of that group
};

}  // namespace detail

/// Upper bound on the scratch of selective_scan and selective_scan_backward in bytes: about 2 (E / 64 + 1) values of
/// type C per element of B, and one per element of A_log and sequence.
template <ComputeScalar C>
std::size_t selective_scan_scratch(const Device& device, Shape shape, Index channels, Index states) {
  if (shape.lengths != nullptr) {
    return largest_run_scratch(shape,
                               [&](Shape run) { return selective_scan_scratch<C>(device, run, channels, states); });
  }
  Arena counting, thread;
  (void)detail::ScanPartialSums<C>(counting, shape, channels, states);
  (void)detail::ScanBackwardMemory<Packet<C>>(thread, states);
  if (thread.used() > Device::thread_scratch_bytes) {
    (void)counting.take<std::byte>(static_cast<Index>(thread.used()) * device.threads());
  }
  return counting.used();
}

/// Scratch of selective_scan in bytes per thread; with `training` enough for selective_scan_backward too.
template <ComputeScalar C, int States>
std::size_t selective_scan_thread_scratch(const Device&, bool training) {
  using P = Packet<C>;
  constexpr Index blocks = detail::scan_task_channels<C, States>() / lanes<P>;
  const std::size_t forward = bytes_of<detail::ScanMemory<P>>(blocks, Index{States});
  const std::size_t backward = bytes_of<detail::ScanBackwardMemory<P>>(Index{States});
  return training && backward <= Device::thread_scratch_bytes ? std::max(forward, backward) : forward;
}

/// See ops/selective_scan.hpp. Outputs must not overlap inputs or one another.
///
/// A NaN in an input of a step propagates to the gradients of the inputs of that step and of all earlier ones.
template <class C, class S, int States>
void selective_scan_backward(Device& device, const SelectiveScanBackward<C, S, States>& scan) {
  if (each_packed_scan(scan, [&](const auto& part) { selective_scan_backward(device, part); })) return;
  const Index channels = scan.du.columns, batch = scan.shape.batch;
  if (batch == 0 || scan.shape.length == 0 || channels == 0) return;
  Arena arena = scan.scratch;
  const detail::ScanPartialSums<C> partial(arena, scan.shape, channels, States);
  const Index tasks = detail::scan_tasks(channels, detail::scan_backward_channels<C>);

  const std::size_t thread_bytes = bytes_of<detail::ScanBackwardMemory<Packet<C>>>(Index{States});
  const bool fits = thread_bytes <= Device::thread_scratch_bytes;
  std::byte* const own = fits ? nullptr : arena.take<std::byte>(static_cast<Index>(thread_bytes) * device.threads());
  const auto scratch = fits ? device.thread_scratch(thread_bytes) : Device::ThreadScratch{own, thread_bytes};
  device.parallel(batch * tasks, [&](Index task, int thread) {
    detail::ScanBackwardTask<C, S, States>(scan, partial, task, Arena(scratch(thread))).run();
  });
  detail::add_partial_sums(device, scan, partial);
}

}  // namespace moe_mamba::inline v0_2::cpu
