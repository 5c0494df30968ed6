#pragma once

#include <cmath>
#include <cstddef>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/position.hpp"

/// Causal attention (Vaswani et al. 2017) of H heads that share G heads of keys and values (Ainslie et al. 2023, arXiv
/// 2305.13245), over a window of the last N positions. With d the width of a head and g = h G / H rounded down, the
/// step at position p of a sequence gets, for each head h:
///
///   s_j = q_p · k_j / sqrt(d)                   p - N < j <= p: the position itself and up to N - 1 before it
///   y_p = Σ_j softmax(s)_j v_j                  q, y of head h; k, v of head g
///
///   causal_attention(device, CausalAttention<C, d>{…})                     forward, any length from 0
///   causal_attention_backward(device, CausalAttentionBackward<C, d>{…})
///   causal_attention_scratch<C, d>(device, shape, heads)                   maximum bytes of scratch of either
///
/// A running state is the cache of the last N keys and values, [G, N, d] each, and the position (ops/position.hpp). The
/// row of position p is in slot p mod N: rows never move, and slots that were not written are not read. Since the
/// window is as long as the cache, reading a sequence of any length in chunks is the same as reading it whole. A call
/// of length 0 leaves the state unchanged.
///
/// Softmax is computed in C, with sums over blocks of keys; a key outside a step's window does not affect it, even if
/// it is NaN. Results do not depend on the other sequences of the batch nor on the number of threads; dividing a
/// sequence into calls changes them by rounding only.
namespace moe_mamba::inline v0_2 {

/// The number of query heads, that of key/value heads (a divisor of it), and the window.
struct AttentionHeads {
  Index queries = 1;     // H
  Index key_values = 1;  // G
  Index context = 1;     // N

  MOE_MAMBA_HOST_DEVICE constexpr Index group() const { return queries / key_values; }
};

/// The layout of a sequence's running state.
template <int HeadWidth>
struct AttentionCache {
  Index key_values, context;

  MOE_MAMBA_HOST_DEVICE constexpr explicit AttentionCache(const AttentionHeads& heads)
      : key_values(heads.key_values), context(heads.context) {}

  /// Rows of one head, [N, d].
  MOE_MAMBA_HOST_DEVICE constexpr Index keys(Index head) const { return head * context * HeadWidth; }
  MOE_MAMBA_HOST_DEVICE constexpr Index values(Index head) const { return (key_values + head) * context * HeadWidth; }
  MOE_MAMBA_HOST_DEVICE constexpr Index position() const { return 2 * key_values * context * HeadWidth; }
  MOE_MAMBA_HOST_DEVICE constexpr Index size() const { return position() + position_digits; }
};

/// The rows that the steps of a sequence may attend to, in the order of positions: first `cached` rows of the cache,
/// then those of the call. Row j is in the cache for j < cached, otherwise it is row j - cached of the call.
struct SeenRows {
  Index position;  // of the call's first step
  Index cached;
  Index context;
  Index start;  // slot of row 0

  MOE_MAMBA_HOST_DEVICE constexpr SeenRows(Index read, Index window)
      : position(read), cached(read < window ? read : window), context(window), start((read - cached) % window) {}

  MOE_MAMBA_HOST_DEVICE constexpr Index slot(Index row) const {
    const Index from_first = start + row;
    if (from_first < context) return from_first;
    return from_first < 2 * context ? from_first - context : from_first % context;
  }
  /// Step t attends to the rows first(t) … last(t) - 1.
  MOE_MAMBA_HOST_DEVICE constexpr Index last(Index step) const { return cached + step + 1; }
  MOE_MAMBA_HOST_DEVICE constexpr Index first(Index step) const {
    const Index from = last(step) - context;
    return from > 0 ? from : 0;
  }
};

template <class C, int HeadWidth>
struct CausalAttention {
  Shape shape;                    // B sequences of L steps, or packed ones; T rows
  AttentionHeads heads;           // H, G, N
  MatrixView<const C> q;          // (T, H d)
  MatrixView<const C> k, v;       // (T, G d)
  StateView<compute_t<C>> state;  // AttentionCache::size() per sequence: in and out; may be null (empty, dropped)
  compute_t<C>* saved_state;  // (B, AttentionCache::size()): receives the rows read from the initial states, and their
                              // positions; null if no backward pass follows
  MatrixView<C> y;            // (T, H d), must not overlap q, k, v
  compute_t<C>* log_sums;     // (T, H): log Σ_j exp(s_j), for the backward pass; null if none follows
  Arena scratch;              // causal_attention_scratch(…) bytes

  constexpr CausalAttention slice(const SequenceRun& run) const {
    const Index cache = AttentionCache<HeadWidth>(heads).size();
    return {.shape = run.shape,
            .heads = heads,
            .q = run.rows(q),
            .k = run.rows(k),
            .v = run.rows(v),
            .state = state.from(run.sequence),
            .saved_state = saved_state == nullptr ? nullptr : saved_state + run.sequence * cache,
            .y = run.rows(y),
            .log_sums = log_sums == nullptr ? nullptr : log_sums + run.row * heads.queries,
            .scratch = scratch};
  }
};

/// Gradients of a scalar loss. dq, dk and dv are overwritten.
template <class C, int HeadWidth>
struct CausalAttentionBackward {
  Shape shape;
  AttentionHeads heads;
  MatrixView<const C> q, k, v;      // as in the forward pass
  const compute_t<C>* saved_state;  // from the forward pass
  MatrixView<const C> y;            // from the forward pass
  const compute_t<C>* log_sums;     // from the forward pass
  MatrixView<const C> dy;           // (T, H d), must not overlap dq, dk, dv
  MatrixView<C> dq;                 // (T, H d)
  MatrixView<C> dk, dv;             // (T, G d)
  StateView<compute_t<C>>
      dstate;     // with respect to the final state on entry, to the initial one on return, with a gradient of 0
                  // for the position; may be null. A length of 0 leaves it unchanged
  Arena scratch;  // causal_attention_scratch(…) bytes

  constexpr CausalAttentionBackward slice(const SequenceRun& run) const {
    return {.shape = run.shape,
            .heads = heads,
            .q = run.rows(q),
            .k = run.rows(k),
            .v = run.rows(v),
            .saved_state = saved_state + run.sequence * AttentionCache<HeadWidth>(heads).size(),
            .y = run.rows(y),
            .log_sums = log_sums + run.row * heads.queries,
            .dy = run.rows(dy),
            .dq = run.rows(dq),
            .dk = run.rows(dk),
            .dv = run.rows(dv),
            .dstate = dstate.from(run.sequence),
            .scratch = scratch};
  }
};

}  // namespace moe_mamba::inline v0_2
