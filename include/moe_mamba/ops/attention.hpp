#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/position.hpp"
#include "moe_mamba/ops/reference.hpp"

/// Causal attention (Vaswani et al. 2017) of H heads that share G heads of keys and values (Ainslie et al. 2023, arXiv
/// 2305.13245), over a window of the last N positions. With d the width of a head and g = h G / H rounded down, the step at
/// position p of a sequence gets, for each head h:
///
///   s_j = q_p · k_j / sqrt(d)                   p - N < j <= p: itself and the N - 1 before it, as far as there are any
///   y_p = Σ_j softmax(s)_j v_j                  q, y of head h; k, v of head g
///
///   causal_attention(device, CausalAttention<C, d>{…})                     forward, any length from 0
///   causal_attention_backward(device, CausalAttentionBackward<C, d>{…})
///   causal_attention_scratch<C, d>(device, shape, heads)                   bytes of scratch that either needs at most
///
/// A running state is the cache of the last N keys and values, [G, N, d] each, and the position (ops/position.hpp). The row
/// of position p lies in slot p mod N: nothing moves, and what was never written is never read. Since the window is as
/// long as the cache, a sequence read in pieces is the sequence read whole, whatever its length. A call of length 0 leaves
/// the state as it is.
///
/// Softmax runs in C, sums in blocks of keys; a key outside a step's window does not touch it, not even as a NaN. Results
/// do not depend on the other sequences of the batch nor on the number of threads; how a sequence is cut into calls changes
/// them by rounding.
namespace moe_mamba {

/// Heads of queries, those of keys and values (which divide the former), and the window.
struct AttentionHeads {
  Index queries = 1;     // H
  Index key_values = 1;  // G
  Index context = 1;     // N

  MOE_MAMBA_HOST_DEVICE constexpr Index group() const { return queries / key_values; }
};

/// Where things lie in the running state of a sequence.
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

/// What the steps of one sequence can see, in the order of positions: `cached` rows of the cache, then the call's own. Row
/// j lies in the cache for j < cached and is row j - cached of the call otherwise.
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
  /// The rows that step t sees are first(t) … last(t) - 1.
  MOE_MAMBA_HOST_DEVICE constexpr Index last(Index step) const { return cached + step + 1; }
  MOE_MAMBA_HOST_DEVICE constexpr Index first(Index step) const {
    const Index from = last(step) - context;
    return from > 0 ? from : 0;
  }
};

template <class C, int HeadWidth>
struct CausalAttention {
  Shape shape;                    // B sequences of L steps, T = B·L rows
  AttentionHeads heads;           // H, G, N
  MatrixView<const C> q;          // (T, H d)
  MatrixView<const C> k, v;       // (T, G d)
  StateView<compute_t<C>> state;  // AttentionCache::size() a sequence: in and out; may be null (empty, dropped)
  compute_t<C>* saved_state;  // (B, AttentionCache::size()): receives what was read of the initial states, and their
                              // positions; null where no backward pass follows
  MatrixView<C> y;            // (T, H d), must not overlap q, k, v
  compute_t<C>* log_sums;     // (T, H): log Σ_j exp(s_j), for the backward pass; null where none follows
  Arena scratch;              // causal_attention_scratch(…) bytes
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
      dstate;     // with respect to the final state on entry, to the initial one on return, where that by
                  // the position is 0; may be null. A length of 0 leaves it as it is
  Arena scratch;  // causal_attention_scratch(…) bytes
};

}  // namespace moe_mamba

namespace moe_mamba::reference {

/// The reference takes its memory from the heap.
template <class C, int HeadWidth>
std::size_t causal_attention_scratch(const Device&, Shape, const AttentionHeads&) {
  return 0;
}

namespace detail {

/// The keys or values that one head of one sequence can see, in double, one row after the other.
template <int HeadWidth, class C>
std::vector<double> seen_rows(const SeenRows& seen, const compute_t<C>* cache, MatrixView<const C> own, Index length) {
  std::vector<double> rows;
  for (Index j = 0; j < seen.cached + length; ++j) {
    for (Index i = 0; i < HeadWidth; ++i) {
      rows.push_back(j < seen.cached ? static_cast<double>(cache[seen.slot(j) * HeadWidth + i])
                                     : static_cast<double>(own(j - seen.cached, i)));
    }
  }
  return rows;
}

template <int HeadWidth>
double dot_row(const double* a, const std::vector<double>& rows, Index row) {
  double sum = 0;
  for (Index i = 0; i < HeadWidth; ++i) sum += a[i] * rows[static_cast<std::size_t>(row * HeadWidth + i)];
  return sum;
}

/// softmax(s) of one step and head over the rows that it sees, and log Σ exp(s).
template <int HeadWidth>
std::vector<double> attention_weights(const SeenRows& seen, Index step, const double* q,
                                      const std::vector<double>& keys, double* log_sum) {
  std::vector<double> weights;
  for (Index j = seen.first(step); j < seen.last(step); ++j) {
    weights.push_back(dot_row<HeadWidth>(q, keys, j) / std::sqrt(static_cast<double>(HeadWidth)));
  }
  const double largest = *std::max_element(weights.begin(), weights.end());
  double total = 0;
  for (const double weight : weights) total += std::exp(weight - largest);
  *log_sum = largest + std::log(total);
  for (double& weight : weights) weight = std::exp(weight - *log_sum);
  return weights;
}

}  // namespace detail

/// See the contract above. Runs in double whatever C is.
template <class C, int d>
void causal_attention(const Device&, const CausalAttention<C, d>& attention) {
  const AttentionHeads heads = attention.heads;
  const AttentionCache<d> cache(heads);
  const Index length = attention.shape.length;
  for (Index sequence = 0; sequence < attention.shape.batch; ++sequence) {
    auto* const state = attention.state ? attention.state.sequence(sequence) : nullptr;
    const SeenRows seen(state == nullptr ? 0 : read_position(state + cache.position()), heads.context);
    if (attention.saved_state != nullptr) {
      auto* const saved = attention.saved_state + sequence * cache.size();
      write_position(seen.position, saved + cache.position());
      for (Index row = 0; row < seen.cached * heads.key_values; ++row) {
        const Index offset = seen.slot(row % seen.cached) * d, head = row / seen.cached;
        std::copy_n(state + cache.keys(head) + offset, d, saved + cache.keys(head) + offset);
        std::copy_n(state + cache.values(head) + offset, d, saved + cache.values(head) + offset);
      }
    }
    const Index first_row = sequence * length;
    for (Index h = 0; h < heads.queries; ++h) {
      const Index g = h / heads.group();
      const auto own = [&](MatrixView<const C> rows) {
        return rows.row_block(first_row, length).column_block(g * d, d);
      };
      const auto at = [&](Index offset) { return state == nullptr ? nullptr : state + offset; };
      const auto keys = detail::seen_rows<d, C>(seen, at(cache.keys(g)), own(attention.k), length);
      const auto values = detail::seen_rows<d, C>(seen, at(cache.values(g)), own(attention.v), length);
      for (Index t = 0; t < length; ++t) {
        double q[array_size<d>], y[array_size<d>] = {}, log_sum = 0;
        for (Index i = 0; i < d; ++i) q[i] = static_cast<double>(attention.q(first_row + t, h * d + i));
        const auto weights = detail::attention_weights<d>(seen, t, q, keys, &log_sum);
        for (Index j = seen.first(t); j < seen.last(t); ++j) {
          for (Index i = 0; i < d; ++i) {
            y[i] += weights[static_cast<std::size_t>(j - seen.first(t))] * values[static_cast<std::size_t>(j * d + i)];
          }
        }
        for (Index i = 0; i < d; ++i) attention.y(first_row + t, h * d + i) = static_cast<C>(y[i]);
        if (attention.log_sums != nullptr) {
          attention.log_sums[(first_row + t) * heads.queries + h] = static_cast<compute_t<C>>(log_sum);
        }
      }
    }
    for (Index t = std::max<Index>(0, length - heads.context); t < length && state != nullptr; ++t) {
      const Index slot = seen.slot(seen.cached + t);
      for (Index column = 0; column < heads.key_values * d; ++column) {
        const Index offset = slot * d + column % d;
        state[cache.keys(column / d) + offset] = static_cast<compute_t<C>>(attention.k(first_row + t, column));
        state[cache.values(column / d) + offset] = static_cast<compute_t<C>>(attention.v(first_row + t, column));
      }
    }
    if (state != nullptr && length > 0) write_position(seen.position + length, state + cache.position());
  }
}

/// With p_j = softmax(s)_j of a step and head:
///
///   dv_j += p_j dy                              dp_j = dy · v_j
///   ds_j  = p_j (dp_j - Σ_i p_i dp_i)           dq = Σ_j ds_j k_j / sqrt(d);  dk_j += ds_j q / sqrt(d)
///
/// A row that the call has written into the cache also gets the gradient by its slot there; the slot's own is then that by
/// what it held before.
template <class C, int d>
void causal_attention_backward(const Device&, const CausalAttentionBackward<C, d>& attention) {
  const AttentionHeads heads = attention.heads;
  const AttentionCache<d> cache(heads);
  const Index length = attention.shape.length;
  const double scale = 1 / std::sqrt(static_cast<double>(d));
  for (Index sequence = 0; sequence < attention.shape.batch; ++sequence) {
    const auto* const saved = attention.saved_state + sequence * cache.size();
    auto* const dstate = attention.dstate ? attention.dstate.sequence(sequence) : nullptr;
    const SeenRows seen(read_position(saved + cache.position()), heads.context);
    const Index first_row = sequence * length;
    for (Index g = 0; g < heads.key_values; ++g) {
      const auto own = [&](MatrixView<const C> rows) {
        return rows.row_block(first_row, length).column_block(g * d, d);
      };
      const auto keys = detail::seen_rows<d, C>(seen, saved + cache.keys(g), own(attention.k), length);
      const auto values = detail::seen_rows<d, C>(seen, saved + cache.values(g), own(attention.v), length);
      std::vector<double> dkeys(keys.size()), dvalues(values.size());
      for (Index h = g * heads.group(); h < (g + 1) * heads.group(); ++h) {
        for (Index t = 0; t < length; ++t) {
          double q[array_size<d>], dy[array_size<d>], dq[array_size<d>] = {}, log_sum = 0, mean = 0;
          for (Index i = 0; i < d; ++i) {
            q[i] = static_cast<double>(attention.q(first_row + t, h * d + i));
            dy[i] = static_cast<double>(attention.dy(first_row + t, h * d + i));
          }
          const auto weights = detail::attention_weights<d>(seen, t, q, keys, &log_sum);
          std::vector<double> dweights;
          for (Index j = seen.first(t); j < seen.last(t); ++j) {
            dweights.push_back(detail::dot_row<d>(dy, values, j));
            mean += weights[dweights.size() - 1] * dweights.back();
          }
          for (Index j = seen.first(t); j < seen.last(t); ++j) {
            const auto at = static_cast<std::size_t>(j - seen.first(t));
            const double dscore = weights[at] * (dweights[at] - mean) * scale;
            for (Index i = 0; i < d; ++i) {
              const auto element = static_cast<std::size_t>(j * d + i);
              dq[i] += dscore * keys[element];
              dkeys[element] += dscore * q[i];
              dvalues[element] += weights[at] * dy[i];
            }
          }
          for (Index i = 0; i < d; ++i) attention.dq(first_row + t, h * d + i) = static_cast<C>(dq[i]);
        }
      }
      const auto pass_on = [&](const std::vector<double>& gradients, compute_t<C>* slots, MatrixView<C> to) {
        for (Index t = 0; t < length; ++t) {
          const bool is_kept = slots != nullptr && t >= length - heads.context;
          for (Index i = 0; i < d; ++i) {
            double value = gradients[static_cast<std::size_t>((seen.cached + t) * d + i)];
            if (is_kept) value += static_cast<double>(slots[seen.slot(seen.cached + t) * d + i]);
            if (is_kept) slots[seen.slot(seen.cached + t) * d + i] = 0;
            to(first_row + t, g * d + i) = static_cast<C>(value);
          }
        }
        for (Index j = 0; j < seen.cached && slots != nullptr; ++j) {
          for (Index i = 0; i < d; ++i) {
            auto& slot = slots[seen.slot(j) * d + i];
            slot =
                static_cast<compute_t<C>>(static_cast<double>(slot) + gradients[static_cast<std::size_t>(j * d + i)]);
          }
        }
      };
      pass_on(dkeys, dstate == nullptr ? nullptr : dstate + cache.keys(g), attention.dk);
      pass_on(dvalues, dstate == nullptr ? nullptr : dstate + cache.values(g), attention.dv);
    }
    for (Index i = 0; i < position_digits && dstate != nullptr && length > 0; ++i) dstate[cache.position() + i] = 0;
  }
}

}  // namespace moe_mamba::reference
