#pragma once

#include <algorithm>
#include <numbers>

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/cpu/exponential.hpp"
#include "moe_mamba/cpu/packet_access.hpp"
#include "moe_mamba/cpu/packet_shuffle.hpp"

/// The building block of both passes of the selective scan: the recurrence of a block of channels over a chunk of time.
///
/// A block is one packet of neighbouring channels. In a chunk it has a row of packets for each step; the rows are
/// contiguous, so a loop over steps streams through memory.
namespace moe_mamba::inline v0_2::cpu::detail {

/// A step of a block.
template <PacketLike P>
struct ScanRow {
  P delta;    // Δ
  P delta_u;  // Δ u
  P sum;      // D u, to which C[n] h[n] of one state after the other is added
};

/// A block over a chunk. Row has the members of a ScanRow.
template <PacketLike P, class Row>
struct ScanChunk {
  Index steps;
  const P* rates;                       // (N), see decay_rates()
  Row* rows;                            // (steps)
  MatrixView<const scalar_of<P>> b, c;  // (steps, N)
};

/// rates[n] = -exp(a_log[channel][n]) log2(e) for the `count` channels of a block, the exponent of 2 in a decay over Δ
/// = 1. Lanes beyond count repeat the last channel.
template <int States, PacketLike P, StorageScalar S>
void decay_rates(const S* a_log, Index count, P* rates) {
  using C = scalar_of<P>;
  constexpr Index width = lanes<P>, whole = States / width * width;
  const auto row = [=](Index lane) { return a_log + std::min(lane, count - 1) * States; };
  for (Index first = 0; first < whole; first += width) {
    P square[array_size<width>];
    for (Index lane = 0; lane < width; ++lane) square[lane] = load_widened<P>(row(lane) + first);
    transpose(square);
    for (Index n = 0; n < width; ++n) rates[first + n] = square[n];
  }
  for (Index n = whole; n < States; ++n) {
    alignas(64) C column[array_size<width>];
    for (Index lane = 0; lane < width; ++lane) column[lane] = static_cast<C>(row(lane)[n]);
    rates[n] = load<P>(column);
  }
  for (Index n = 0; n < States; ++n) rates[n] = plain_nan(exponential(rates[n]) * -std::numbers::log2e_v<C>);
}

/// One step of one state: exp(Δ A) h + Δ u B.
template <PacketLike P>
[[gnu::always_inline]] inline P scan_update(P decay, P h, P delta_u, scalar_of<P> b) {
  return fma(decay, h, delta_u * b);
}

/// `Group` states from n on over a whole chunk. They stay in registers, and what a step has for all of them is loaded
/// once; only the sum is a dependency between them. beside(t) is called in step t, for prefetching.
template <int Group, PacketLike P, class Row, class Beside>
[[gnu::always_inline, gnu::flatten]] inline void scan_states(const ScanChunk<P, Row> chunk, Index n, P* states,
                                                             const Beside& beside) {
  using C = scalar_of<P>;
  P h[array_size<Group>], rate[array_size<Group>];
  unroll<Group>([&](auto i) {
    h[i] = states[n + i];
    rate[i] = chunk.rates[n + i];
  });
  const C* b = chunk.b.data + n;
  const C* c = chunk.c.data + n;
  for (Index t = 0; t < chunk.steps; ++t, b += chunk.b.stride, c += chunk.c.stride) {
    Row& row = chunk.rows[t];
    const P delta = row.delta, delta_u = row.delta_u;
    P sum = row.sum;
    unroll<Group>([&](auto i) {
      h[i] = scan_update(decay_power(delta * rate[i]), h[i], delta_u, b[i]);
      sum = fma(h[i], c[i], sum);
    });
    row.sum = sum;
    beside(t);
  }
  unroll<Group>([&](auto i) { states[n + i] = h[i]; });
}

/// All states over a chunk of a single step, with the same results.
template <int States, PacketLike P, class Row>
[[gnu::always_inline]] inline void scan_step(const ScanChunk<P, Row> chunk, P* states) {
  Row& row = chunk.rows[0];
  const P delta = row.delta, delta_u = row.delta_u;
  P sum = row.sum;
  for (Index n = 0; n < States; ++n) {
    const P h = scan_update(decay_power(delta * chunk.rates[n]), states[n], delta_u, chunk.b.data[n]);
    states[n] = h;
    sum = fma(h, chunk.c.data[n], sum);
  }
  row.sum = sum;
}

/// State n over a whole chunk, from `h` before it to the returned value after it. keep(t, decay, h) receives the decay
/// and the new state of each step. Reads the delta of two rows past the end, whose values do not matter.
template <PacketLike P, class Row, class Keep>
[[gnu::always_inline, gnu::flatten]] inline P scan_state(const ScanChunk<P, Row> chunk, Index n, P h,
                                                         const Keep& keep) {
  using C = scalar_of<P>;
  using Decay = DecayPower<P>;
  const P rate = chunk.rates[n];
  const C* b = chunk.b.data + n;
  const C* c = chunk.c.data + n;
  // Software pipelining over three steps: the power of step t + 2 is split, that of t + 1 begun, that of t finished and
  // used.
  Decay current = Decay::split(chunk.rows[0].delta * rate), next = Decay::split(chunk.rows[1].delta * rate);
  P begun = current.begin();
  for (Index t = 0; t < chunk.steps; ++t, b += chunk.b.stride, c += chunk.c.stride) {
    Row& row = chunk.rows[t];
    const Decay later = Decay::split(chunk.rows[t + 2].delta * rate);
    const P decay = current.finish(begun);
    begun = next.begin();
    h = scan_update(decay, h, row.delta_u, *b);
    row.sum = fma(h, *c, row.sum);
    keep(t, decay, h);
    current = next;
    next = later;
  }
  return h;
}

}  // namespace moe_mamba::inline v0_2::cpu::detail
