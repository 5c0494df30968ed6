#pragma once

#include <cstddef>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/view.hpp"

/// The selective scan of Mamba (Gu & Dao 2023, arXiv 2312.00752, section 3.2 and algorithm 2), with step projection
/// bias, softplus, skip and gate included. For each sequence, channel e of E and state n of N:
///
///   Δ_t   = softplus(delta_t + delta_bias)                     (E)
///   A     = -exp(a_log)                                        (E, N)
///   h_t   = exp(Δ_t A) h_{t-1} + Δ_t u_t B_t                   (E, N)
///   y_t   = (Σ_n C_t[n] h_t[:, n] + d u_t) · silu(z_t)         (E)
///
///   selective_scan(device, SelectiveScan<C, S, N>{…})                 forward, any length from 0 (a step has length 1)
///   selective_scan_backward(device, SelectiveScanBackward<C, S, N>{…})
///   selective_scan_scratch<C>(device, shape, channels, states)        maximum bytes of scratch of either
///
/// A_t is discretised by zero-order hold and B_t by Euler's rule, as in the published code. All arithmetic is in
/// compute_t<C> (at least float), for any types C of activations and S of parameters. A running state is [N, E],
/// channels contiguous.
namespace moe_mamba::inline v0_2 {

/// Steps between two saved states. The backward pass recomputes the states inside a segment of this length.
inline constexpr Index scan_checkpoint_interval = 32;

/// Saved states of one sequence: one before each segment, the initial one first; none for an empty sequence.
constexpr Index scan_checkpoints(Index length) {
  return (length + scan_checkpoint_interval - 1) / scan_checkpoint_interval;
}

/// The number for all sequences of a batch.
constexpr Index scan_checkpoints(const Shape& shape) {
  if (shape.lengths == nullptr) return shape.batch * scan_checkpoints(shape.length);
  Index count = 0;
  for (Index sequence = 0; sequence < shape.batch; ++sequence) count += scan_checkpoints(shape.lengths[sequence]);
  return count;
}

template <class C, class S, int States>
struct SelectiveScan {
  Shape shape;                // B sequences of L steps, or packed ones; T rows
  MatrixView<const C> u;      // (T, E)
  MatrixView<const C> delta;  // (T, E), before bias and softplus
  MatrixView<const C> b;      // (T, N)
  MatrixView<const C> c;      // (T, N)
  MatrixView<const C> z;      // (T, E), before silu
  const S* delta_bias;        // (E)
  const S* a_log;             // (E, N)
  const S* d;                 // (E)
  StateView<compute_t<C>>
      state;                  // (N, E) per sequence: the initial states on entry, the final ones on return; may be null
  compute_t<C>* checkpoints;  // (B, scan_checkpoints(L), N, E), or null if no backward pass follows
  MatrixView<C> y;            // (T, E)
  Arena scratch;              // selective_scan_scratch<C>(…) bytes

  static constexpr int states = States;
  /// The arguments for a run, except the checkpoints: see each_packed_scan().
  constexpr SelectiveScan slice(const SequenceRun& run) const {
    SelectiveScan part = *this;
    part.shape = run.shape;
    for (auto* rows : {&part.u, &part.delta, &part.b, &part.c, &part.z}) *rows = run.rows(*rows);
    part.state = state.from(run.sequence);
    part.y = run.rows(y);
    return part;
  }
};

/// Gradients of a scalar loss. du, ddelta, dz, db and dc are overwritten; the gradients of parameters are added to.
template <class C, class S, int States>
struct SelectiveScanBackward {
  Shape shape;
  MatrixView<const C> u, delta, b, c, z;  // as in the forward pass
  const S* delta_bias;
  const S* a_log;
  const S* d;
  const compute_t<C>* checkpoints;  // from the forward pass
  MatrixView<const C> dy;           // (T, E)
  MatrixView<C> du, ddelta, dz;     // (T, E); ddelta with respect to delta before bias and softplus
  MatrixView<C> db, dc;             // (T, N)
  compute_t<C>* ddelta_bias;        // (E)
  compute_t<C>* da_log;             // (E, N)
  compute_t<C>* dd;                 // (E)
  StateView<compute_t<C>> dstate;   // (N, E): with respect to the final state on entry, to the initial one on
                                    // return; may be null (zero, dropped)
  Arena scratch;                    // selective_scan_scratch<C>(…) bytes

  static constexpr int states = States;
  /// The arguments for a run, except the checkpoints: see each_packed_scan().
  constexpr SelectiveScanBackward slice(const SequenceRun& run) const {
    SelectiveScanBackward part = *this;
    part.shape = run.shape;
    for (auto* rows : {&part.u, &part.delta, &part.b, &part.c, &part.z, &part.dy}) *rows = run.rows(*rows);
    for (auto* rows : {&part.du, &part.ddelta, &part.dz, &part.db, &part.dc}) *rows = run.rows(*rows);
    part.dstate = dstate.from(run.sequence);
    return part;
  }
};

/// each_packed_run() for a scan or its backward pass, in which each sequence's checkpoints follow those of the previous
/// one.
template <class Scan, class Call>
constexpr bool each_packed_scan(const Scan& scan, const Call& call) {
  auto* checkpoints = scan.checkpoints;
  return each_packed_run(scan, [&](Scan part) {
    part.checkpoints = checkpoints;
    call(part);
    if (checkpoints != nullptr) checkpoints += scan_checkpoints(part.shape) * Scan::states * scan.u.columns;
  });
}

}  // namespace moe_mamba::inline v0_2
