#pragma once

#include <algorithm>

#include "moe_mamba/cpu/channels.hpp"
#include "moe_mamba/cpu/device.hpp"
#include "moe_mamba/cpu/selective_scan_chunk.hpp"
#include "moe_mamba/ops/selective_scan.hpp"

/// The selective scan on the CPU.
///
/// The lanes of a packet are neighbouring channels: no sum over lanes is needed anywhere in the forward pass, and rows
/// of u, delta, z and y are accessed in place. Time is divided into chunks so short that all the data of a block's
/// chunk stays in the L1 cache, including the rows of B and C, which all blocks share. Within a chunk a block runs
/// three loops: Δ and Δ u of all steps; the recurrence, one group of states at a time, with their rates and running
/// values in registers; then the gate.
///
/// A step's arithmetic depends neither on where chunks begin nor on the number of threads: prefill in one call or in
/// many, and single steps, give the same bits.
///
/// Updating one state of a packet takes 14 arithmetic instructions, or 7 cycles at two per cycle. Measured with AVX-512
/// (1536 channels, 16 states, inputs in the L3 cache): 13 to 14 cycles in all, of which softplus and gate take 5 and
/// memory stalls most of the rest.
namespace moe_mamba::inline v0_2::cpu {

namespace detail {

/// Steps per chunk, and states per group: as many as leave some registers for the arithmetic. With 48 KiB of L1 cache,
/// chunks of 16 to 64 steps were equally fast; these fit in 32 KiB. Groups of 4 states took a tenth longer.
inline constexpr Index scan_chunk_steps = 32;
inline constexpr int scan_group_states = vector_registers >= 32 ? 16 : 8;
static_assert(scan_checkpoint_interval % scan_chunk_steps == 0);

/// Channels per task: enough for whole cache lines of each row, and few enough that their rates and states stay in the
/// L1 cache for usual state sizes and fit in a thread's scratch memory for any.
template <class C, int States>
constexpr Index scan_task_channels() {
  constexpr Index width = lanes<Packet<C>>;
  constexpr Index bytes = Index{2} * States * static_cast<Index>(sizeof(C));  // a channel's rates and states
  const Index fitting = (Index{1} << 20) / bytes / width * width;
  return std::max(width, std::min(std::max(width, Index{64}), fitting));
}

/// A thread's memory in the forward pass.
template <PacketLike P>
struct ScanMemory {
  P* rates;          // (blocks, N)
  P* states;         // (blocks, N)
  ScanRow<P>* rows;  // of one chunk

  ScanMemory(Arena& arena, Index blocks, Index count)
      : rates(arena.take<P>(blocks * count)),
        states(arena.take<P>(blocks * count)),
        rows(arena.take<ScanRow<P>>(scan_chunk_steps)) {}
};

/// One task of the forward pass: some channels of some sequences.
template <class C, class S, int States>
class ScanTask {
  using P = Packet<C>;
  using Chunk = ScanChunk<P, ScanRow<P>>;
  static constexpr Index width = lanes<P>;

 public:
  static constexpr Index max_blocks = scan_task_channels<C, States>() / width;
  static_assert(States >= 1, "selective_scan: State must be at least 1");
  static_assert(
      2 * max_blocks * States * sizeof(P) + (Index{16} << 10) <= Device::thread_scratch_bytes,
      "selective_scan: State is so large that the states of one packet of channels overflow a thread's scratch");

  ScanTask(const SelectiveScan<C, S, States>& scan, Index first_channel, Arena memory)
      : scan_(scan),
        first_(first_channel),
        channels_(scan.y.columns),
        blocks_(std::min(max_blocks, (channels_ - first_ + width - 1) / width)),
        memory_(memory, max_blocks, States) {
    for (Index block = 0; block < blocks_; ++block) {
      decay_rates<States>(scan.a_log + channel(block) * States, std::min(width, channels_ - channel(block)),
                          memory_.rates + block * States);
    }
  }

  void run(Index sequence) const {
    const Index length = scan_.shape.length;
    C* const state = scan_.state ? scan_.state.sequence(sequence) : nullptr;
    each_block([&](Index block, auto lane) {
      for (Index n = 0; n < States; ++n) {
        states(block)[n] = state == nullptr ? P(0) : lane.load_channels(state + n * channels_ + channel(block));
      }
    });
    for (Index first = 0; first < length; first += scan_chunk_steps) {
      const Index steps = std::min(scan_chunk_steps, length - first);
      C* const checkpoint =
          scan_.checkpoints == nullptr || first % scan_checkpoint_interval != 0
              ? nullptr
              : scan_.checkpoints +
                    (sequence * scan_checkpoints(length) + first / scan_checkpoint_interval) * States * channels_;
      each_block([&](Index block, auto lane) {
        if (checkpoint != nullptr) save(checkpoint, block, lane);
        run_chunk(sequence * length + first, steps, block, lane);
      });
    }
    if (state != nullptr) each_block([&](Index block, auto lane) { save(state, block, lane); });
  }

 private:
  Index channel(Index block) const { return first_ + block * width; }
  P* states(Index block) const { return memory_.states + block * States; }

  template <class Body>
  void each_block(const Body& body) const {
    for (Index block = 0; block < blocks_; ++block) {
      with_channel_lanes<P>(channel(block), channels_, [&](auto lane) { body(block, lane); });
    }
  }

  template <class Lanes>
  void save(C* to, Index block, const Lanes& lane) const {
    for (Index n = 0; n < States; ++n) lane.store_channels(to + n * channels_ + channel(block), states(block)[n]);
  }

  template <class Lanes>
  void run_chunk(Index row, Index steps, Index block, const Lanes& lane) const {
    const Index at = channel(block);
    const Chunk chunk{steps, memory_.rates + block * States, memory_.rows, scan_.b.row_block(row, steps),
                      scan_.c.row_block(row, steps)};
    const P bias = lane.load_parameters(scan_.delta_bias + at), d = lane.load_parameters(scan_.d + at);
    for (Index t = 0; t < steps; ++t) {
      const P delta = softplus(lane.load_channels(scan_.delta.row(row + t) + at) + bias);
      const P u = lane.load_channels(scan_.u.row(row + t) + at);
      chunk.rows[t] = {delta, delta * u, d * u};
    }
    recur(chunk, row, block);
    for (Index t = 0; t < steps; ++t) {
      const P gate = silu(lane.load_channels(scan_.z.row(row + t) + at));
      lane.store_channels(scan_.y.row(row + t) + at, chunk.rows[t].sum * gate);
    }
  }

  void recur(const Chunk& chunk, Index row, Index block) const {
    const Index steps = chunk.steps;
    if (steps == 1) {
      scan_step<States>(chunk, states(block));
      return;
    }
    constexpr int group = std::min(scan_group_states, States), rest = States % group;
    // The stride of rows defeats the hardware prefetcher: the first group prefetches what the gate of this block reads,
    // the second what the next block, or the first block of the next chunk, reads first.
    const bool last = block + 1 == blocks_;
    const Index at = channel(block), next = last ? first_ : at + width;
    const Index later = last ? std::min(steps, scan_.shape.tokens() - row - steps) : 0;
    for (Index n = 0; n + group <= States; n += group) {
      scan_states<group>(chunk, n, states(block), [&](Index t) {
        if (n == 0) {
          prefetch<false>(scan_.z.row(row + t) + at);
          prefetch<true>(scan_.y.row(row + t) + at);
        }
        if (n == group || States < 2 * group) {
          prefetch<false>(scan_.delta.row(row + t + later) + next);
          prefetch<false>(scan_.u.row(row + t + later) + next);
        }
      });
    }
    if constexpr (rest > 0) scan_states<rest>(chunk, States - rest, states(block), [](Index) {});
  }

  const SelectiveScan<C, S, States>& scan_;
  Index first_;
  Index channels_;
  Index blocks_;
  ScanMemory<P> memory_;
};

}  // namespace detail

/// See ops/selective_scan.hpp. `scratch` is not used; the threads' scratch is. y must not overlap any input.
///
/// Decays are clamped from below at 2^-126 (double: 2^-1022). A NaN in delta, u, B, C or z propagates to y; one in
/// delta, u, B, a_log or the state persists in the state.
template <class C, class S, int States>
void selective_scan(Device& device, const SelectiveScan<C, S, States>& scan) {
  if (each_packed_scan(scan, [&](const auto& part) { selective_scan(device, part); })) return;
  using Task = detail::ScanTask<C, S, States>;
  constexpr Index task_channels = detail::scan_task_channels<C, States>();
  const Index groups = (scan.y.columns + task_channels - 1) / task_channels;
  const Index batch = scan.shape.batch;
  if (batch == 0 || groups == 0) return;
  // Sequences in one task share the rates, which cost as much as one or two steps; but there must be enough tasks for
  // all threads.
  const Index enough_steps = 64, enough_tasks = 4 * device.threads();
  const Index sharing = std::clamp(enough_steps / std::max<Index>(1, scan.shape.length), Index{1}, batch);
  const Index spread = std::max<Index>(1, batch * groups / enough_tasks);
  const Index span = std::min(sharing, spread);
  const auto scratch = device.thread_scratch(bytes_of<detail::ScanMemory<Packet<C>>>(Task::max_blocks, Index{States}));
  device.parallel((batch + span - 1) / span * groups, [&](Index index, int thread) {
    const Index first = index / groups * span;
    const Task task(scan, index % groups * task_channels, Arena(scratch(thread)));
    for (Index sequence = first; sequence < std::min(batch, first + span); ++sequence) task.run(sequence);
  });
}

}  // namespace moe_mamba::inline v0_2::cpu
