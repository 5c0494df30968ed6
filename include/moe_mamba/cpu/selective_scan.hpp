#pragma once

#include <algorithm>
#include <numbers>

#include "moe_mamba/cpu/channels.hpp"
#include "moe_mamba/cpu/device.hpp"
#include "moe_mamba/cpu/exponential.hpp"
#include "moe_mamba/cpu/packet_shuffle.hpp"
#include "moe_mamba/ops/selective_scan.hpp"

/// The selective scan on the CPU.
///
/// The lanes of a packet are neighbouring channels: no sum over lanes is needed anywhere in the forward pass, and rows
/// of u, delta, z and y are read as they lie. A block is one packet of channels. Time is cut into pieces so short that
/// all that a block touches in one stays in the first-level cache, the rows of B and C among it, which block after block
/// uses. Within a piece a block goes through three loops: Δ and Δ u of all steps; the recurrence, a group of states after
/// the other, each with its rate and running value in registers; then the gate.
///
/// A step's arithmetic depends neither on where pieces begin nor on the number of threads: prefill, chunks and single
/// steps give the same bits.
///
/// A state update of a packet takes 14 arithmetic instructions, 7 cycles where two are begun in each. With AVX-512 13 to
/// 14 cycles were measured, all included (1536 channels, 16 states, from the third-level cache): softplus and gate take
/// 5, waiting for memory most of the rest.
namespace moe_mamba::cpu {

namespace detail {

/// rates[n][lane] = -exp(a_log[lane][n]) log2(e) for `count` channels: the exponent of 2 in a decay over Δ = 1. The
/// lanes beyond count get some number.
template <class P, int States, StorageScalar S>
void decay_rates(const S* a_log, Index count, scalar_of<P>* rates) {
  using C = scalar_of<P>;
  constexpr Index width = lanes<P>;
  constexpr Index whole = States / width * width;
  for (Index first = 0; first < whole; first += width) {
    P packets[array_size<width>];
    for (Index lane = 0; lane < width; ++lane) {
      packets[lane] = load_widened<P>(a_log + std::min(lane, count - 1) * States + first);
    }
    transpose(packets);
    for (Index n = 0; n < width; ++n) store(rates + (first + n) * width, packets[n]);
  }
  for (Index n = whole; n < States; ++n) {
    for (Index lane = 0; lane < width; ++lane) {
      rates[n * width + lane] = lane < count ? static_cast<C>(a_log[lane * States + n]) : C(0);
    }
  }
  for (Index n = 0; n < States; ++n) {
    const P rate = exponential(load<P>(rates + n * width)) * -std::numbers::log2e_v<C>;
    store(rates + n * width, plain_nan(rate));
  }
}

/// What one block of channels needs of a piece of time. A step has a row of `Columns` packets, the first three of which
/// are those named here; they lie together, so that a loop over steps is one stream through memory.
template <PacketLike P, int Columns>
struct ScanPiece {
  using C = scalar_of<P>;
  static constexpr Index row_size = Columns * lanes<P>;

  Index steps;
  const C* rates;            // (N, lanes)
  C* rows;                   // (steps, Columns, lanes)
  MatrixView<const C> b, c;  // (steps, N)

  C* delta(Index t) const { return rows + t * row_size; }               // Δ
  C* drive(Index t) const { return rows + t * row_size + lanes<P>; }    // Δ u
  C* sum(Index t) const { return rows + t * row_size + 2 * lanes<P>; }  // gets Σ_n C[n] h[n] added
};

/// One step: exp(Δ A) h + Δ u B.
template <PacketLike P>
[[gnu::always_inline]] inline P scan_update(const P& decay, const P& state, const P& drive, scalar_of<P> b) {
  return fma(decay, state, drive * b);
}

/// Group states of a block over a whole piece, with the same results. `h` is (Group, lanes), in and out; the states stay
/// in registers and what a step has for all of them is loaded once. They wait for nothing of one another but the sum.
template <int Group, PacketLike P, int Columns, class Beside>
[[gnu::always_inline]] inline void scan_states(const ScanPiece<P, Columns> piece, Index n, scalar_of<P>* state,
                                               const Beside& beside) {
  using C = scalar_of<P>;
  P h[array_size<Group>], rate[array_size<Group>];
  unroll<Group>([&](auto i) {
    h[i] = load<P>(state + i * lanes<P>);
    rate[i] = load<P>(piece.rates + (n + i) * lanes<P>);
  });
  const C* b = piece.b.data + n;
  const C* c = piece.c.data + n;
  for (Index t = 0; t < piece.steps; ++t, b += piece.b.stride, c += piece.c.stride) {
    const P delta = load<P>(piece.delta(t)), drive = load<P>(piece.drive(t));
    P sum = load<P>(piece.sum(t));
    unroll<Group>([&](auto i) {
      h[i] = scan_update(decay_power(delta * rate[i]), h[i], drive, b[i]);
      sum = fma(h[i], c[i], sum);
    });
    store(piece.sum(t), sum);
    beside(t);
  }
  unroll<Group>([&](auto i) { store(state + i * lanes<P>, h[i]); });
}

/// All states of a single step, with the same results.
template <PacketLike P, int States, int Columns>
[[gnu::always_inline]] inline void scan_step(const ScanPiece<P, Columns>& piece, scalar_of<P>* states) {
  const P delta = load<P>(piece.delta(0)), drive = load<P>(piece.drive(0));
  P sum = load<P>(piece.sum(0));
  for (Index n = 0; n < States; ++n) {
    const P decay = decay_power(delta * load<P>(piece.rates + n * lanes<P>));
    const P h = scan_update(decay, load<P>(states + n * lanes<P>), drive, piece.b.data[n]);
    store(states + n * lanes<P>, h);
    sum = fma(h, piece.c.data[n], sum);
  }
  store(piece.sum(0), sum);
}

/// Steps of a piece, and states that go through it together: as many as leave some registers for the arithmetic. Pieces
/// of 16 to 64 steps made no difference where the first-level cache is 48 KiB; these fit in 32. Groups of 4 states took a
/// tenth longer.
inline constexpr Index scan_piece_steps = 32;
inline constexpr int scan_group_states = vector_registers >= 32 ? 16 : 8;
static_assert(scan_checkpoint_interval % scan_piece_steps == 0);

/// Channels that one task takes: enough that rows are read in whole cache lines, few enough that rates and states of
/// all of them stay in the first-level cache with usual sizes and fit a thread's scratch memory with any.
template <class C, int States>
constexpr Index scan_task_channels() {
  constexpr Index width = lanes<Packet<C>>;
  constexpr Index bytes = Index{2} * States * static_cast<Index>(sizeof(C));  // a channel's rates and states
  const Index fitting = (Index{1} << 20) / bytes / width * width;
  return std::max(width, std::min(std::max(width, Index{64}), fitting));
}

/// One task of the forward pass: some channels of some sequences.
template <class C, class S, int States>
class ScanTask {
  using P = Packet<C>;
  static constexpr Index width = lanes<P>;
  static constexpr Index interval = scan_piece_steps;
  static constexpr Index block_size = States * width;
  static constexpr Index blocks_at_most = scan_task_channels<C, States>() / width;

 public:
  static_assert(States >= 1, "selective_scan: State must be at least 1");
  static_assert(
      2 * blocks_at_most * block_size * sizeof(C) + (Index{16} << 10) <= Device::scratch_bytes,
      "selective_scan: State is so large that the states of one packet of channels overflow a thread's scratch");

  ScanTask(const SelectiveScan<C, S, States>& scan, Index first_channel, Arena memory)
      : scan_(scan),
        first_(first_channel),
        channels_(scan.y.columns),
        blocks_(std::min(blocks_at_most, (channels_ - first_ + width - 1) / width)),
        rates_(memory.take<C>(blocks_at_most * block_size)),
        states_(memory.take<C>(blocks_at_most * block_size)),
        rows_(memory.take<C>(interval * ScanPiece<P, 3>::row_size)) {
    for (Index block = 0; block < blocks_; ++block) {
      const Index channel = first_ + block * width;
      decay_rates<P, States>(scan.a_log + channel * States, std::min(width, channels_ - channel),
                             rates_ + block * block_size);
    }
  }

  void run(Index sequence) const {
    const Index length = scan_.shape.length;
    C* const state = scan_.state ? scan_.state.sequence(sequence) : nullptr;
    for (Index block = 0; block < blocks_; ++block) {
      with_channel_lanes<P>(channel(block), channels_, [&](auto lane) {
        for (Index n = 0; n < States; ++n) {
          store(states(block) + n * width,
                state == nullptr ? P(0) : lane.load_channels(state + n * channels_ + channel(block)));
        }
      });
    }
    for (Index first = 0; first < length; first += interval) {
      const Index steps = std::min(interval, length - first);
      C* const checkpoint =
          scan_.checkpoints == nullptr || first % scan_checkpoint_interval != 0
              ? nullptr
              : scan_.checkpoints +
                    (sequence * scan_checkpoints(length) + first / scan_checkpoint_interval) * States * channels_;
      for (Index block = 0; block < blocks_; ++block) {
        with_channel_lanes<P>(channel(block), channels_, [&](auto lane) {
          if (checkpoint != nullptr) save(checkpoint, block, lane);
          run_block(sequence * length + first, steps, block, lane);
        });
      }
    }
    for (Index block = 0; block < blocks_ && state != nullptr; ++block) {
      with_channel_lanes<P>(channel(block), channels_, [&](auto lane) { save(state, block, lane); });
    }
  }

 private:
  Index channel(Index block) const { return first_ + block * width; }
  C* states(Index block) const { return states_ + block * block_size; }

  template <class Lanes>
  void save(C* to, Index block, const Lanes& lane) const {
    for (Index n = 0; n < States; ++n) {
      lane.store_channels(to + n * channels_ + channel(block), load<P>(states(block) + n * width));
    }
  }

  template <class Lanes>
  void run_block(Index row, Index steps, Index block, const Lanes& lane) const {
    const Index at = channel(block);
    const ScanPiece<P, 3> piece{steps, rates_ + block * block_size, rows_, scan_.b.row_block(row, steps),
                                scan_.c.row_block(row, steps)};
    const P bias = lane.load_parameters(scan_.delta_bias + at), d = lane.load_parameters(scan_.d + at);
    for (Index t = 0; t < steps; ++t) {
      const P delta = softplus(lane.load_channels(scan_.delta.row(row + t) + at) + bias);
      const P u = lane.load_channels(scan_.u.row(row + t) + at);
      store(piece.delta(t), delta);
      store(piece.drive(t), delta * u);
      store(piece.sum(t), d * u);
    }
    recur(piece, row, block);
    for (Index t = 0; t < steps; ++t) {
      const P gate = silu(lane.load_channels(scan_.z.row(row + t) + at));
      lane.store_channels(scan_.y.row(row + t) + at, load<P>(piece.sum(t)) * gate);
    }
  }

  void recur(const ScanPiece<P, 3>& piece, Index row, Index block) const {
    const Index steps = piece.steps;
    if (steps == 1) {
      scan_step<P, States>(piece, states(block));
      return;
    }
    constexpr int group = std::min(scan_group_states, States), rest = States % group;
    // Rows lie too far apart for the machine to foresee: the first group fetches what the gate of this block wants, the
    // second one what the next block, or the first one of the next piece, wants to begin with.
    const bool last = block + 1 == blocks_;
    const Index at = channel(block), next = last ? first_ : at + width;
    const Index later = last ? std::min(steps, scan_.shape.tokens() - row - steps) : 0;
    for (Index n = 0; n + group <= States; n += group) {
      scan_states<group>(piece, n, states(block) + n * width, [&](Index t) {
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
    if constexpr (rest > 0) {
      constexpr Index n = States - rest;
      scan_states<rest>(piece, n, states(block) + n * width, [](Index) {});
    }
  }

  const SelectiveScan<C, S, States>& scan_;
  Index first_;
  Index channels_;
  Index blocks_;
  C* rates_;   // (blocks, N, lanes)
  C* states_;  // (blocks, N, lanes)
  C* rows_;    // of a ScanPiece
};

}  // namespace detail

/// See ops/selective_scan.hpp. `scratch` is not used. Only the views are read and written, nothing is allocated; y must
/// not overlap any input.
///
/// Errors: decays below 2^-126 (double: 2^-1022) count as that. A NaN in delta, u, B, C or z reaches y, one in delta,
/// u, B, a_log or the state stays in the state.
template <class C, class S, int States>
void selective_scan(Device& device, const SelectiveScan<C, S, States>& scan) {
  if (each_packed_scan(scan, [&](const auto& part) { selective_scan(device, part); })) return;
  using Task = detail::ScanTask<C, S, States>;
  constexpr Index task_channels = detail::scan_task_channels<C, States>();
  const Index groups = (scan.y.columns + task_channels - 1) / task_channels;
  const Index batch = scan.shape.batch;
  if (batch == 0 || groups == 0) return;
  // Sequences that share a task share its rates, which cost as much as one or two steps; yet each thread should find
  // work.
  const Index enough_steps = 64, enough_tasks = 4 * device.threads();
  const Index sharing = std::clamp(enough_steps / std::max<Index>(1, scan.shape.length), Index{1}, batch);
  const Index spread = std::max<Index>(1, batch * groups / enough_tasks);
  const Index span = std::min(sharing, spread);
  device.parallel((batch + span - 1) / span * groups, [&](Index index, int thread) {
    const Index first = index / groups * span;
    const Task task(scan, index % groups * task_channels, Arena(device.scratch(thread)));
    for (Index sequence = first; sequence < std::min(batch, first + span); ++sequence) task.run(sequence);
  });
}

}  // namespace moe_mamba::cpu
