#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/attention.hpp"
#include "moe_mamba/reference/device.hpp"

/// The reference of ops/attention.hpp.
namespace moe_mamba::inline v0_2::reference {

/// The reference allocates its memory on the heap.
template <class C, int HeadWidth>
std::size_t causal_attention_scratch(const Device&, Shape, const AttentionHeads&) {
  return 0;
}

namespace detail {

/// The keys or values that one head of one sequence can attend to, in double, row by row.
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

/// softmax(s) of one step and head over the rows that it attends to, and log Σ exp(s).
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
void causal_attention(const Device& device, const CausalAttention<C, d>& attention) {
  if (each_packed_run(attention, [&](const auto& part) { causal_attention(device, part); })) return;
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
/// A row that the call has written into the cache also gets the gradient with respect to its cache slot; the slot then
/// gets the gradient with respect to its previous contents.
template <class C, int d>
void causal_attention_backward(const Device& device, const CausalAttentionBackward<C, d>& attention) {
  if (each_packed_run(attention, [&](const auto& part) { causal_attention_backward(device, part); })) return;
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

}  // namespace moe_mamba::inline v0_2::reference
