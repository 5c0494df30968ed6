#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "moe_mamba/cpu/chunks.hpp"
#include "moe_mamba/cpu/exponential.hpp"
#include "moe_mamba/cpu/packet_access.hpp"
#include "moe_mamba/ops/router.hpp"

/// Routing of tokens to experts on the CPU; the contract is in ops/router.hpp. The softmax of a token runs in the
/// compute type, the statistics over tokens in double.
namespace moe_mamba::inline v0_2::cpu {

namespace detail {

/// Sums over the tokens of one chunk.
template <int Experts>
struct alignas(Arena::alignment) RouterSums {
  double load[array_size<Experts>];
  double probability[array_size<Experts>];
  double entropy;
  double square_log_sum_exp;
  double counted;

  /// Upper bound on their number: one for each chunk of tokens.
  static constexpr Index most() {
    return std::min<Index>(64, static_cast<Index>(Device::thread_scratch_bytes / sizeof(RouterSums)));
  }
};

/// The `TopK` largest of `values`, largest first, ties to the lowest index. With a NaN among the values the choice is
/// arbitrary, but within range and without repetition.
template <int Experts, int TopK, ComputeScalar C>
inline void select_top_k(const C* values, C largest, Index* chosen) {
  alignas(64) C left[array_size<Experts>];
  std::copy_n(values, Experts, left);
  for (int k = 0; k < TopK; ++k) {
    if (k > 0) {
      left[chosen[k - 1]] = -std::numeric_limits<C>::infinity();
      largest = sweep_max(left, Experts);
    }
    const auto taken = [&](Index e) { return std::find(chosen, chosen + k, e) != chosen + k; };
    Index best = 0;
    while (best < Experts && !(left[best] == largest && !taken(best))) ++best;
    if (best == Experts) {
      for (best = 0; taken(best);) ++best;
    }
    chosen[k] = best;
  }
}

/// Chooses by score + bias, where a score is a probability or the sigmoid of a logit.
template <int TopK, ComputeScalar C, int Experts, class B>
inline void select_biased(const Router<C, Experts, TopK, B>& router, const C* logits, const C* probabilities,
                          Index* chosen) {
  alignas(64) C sums[array_size<Experts>];
  const B* const bias = router.selection_bias;
  const bool of_sigmoids = router.order == GateOrder::sigmoid_then_top_k;
  sweep<C>(Experts, [&]<class P>(Index e) {
    const P score = of_sigmoids ? sigmoid(load<P>(logits + e)) : load<P>(probabilities + e);
    store(sums + e, score + load_widened<P>(bias + e));
  });
  select_top_k<Experts, TopK>(sums, sweep_max<C>(sums, Experts), chosen);
}

/// Gates that add up to one: a softmax over the chosen logits, or their sigmoids divided by the sum of these. Logits
/// are shifted by the largest chosen one, as a bias may choose only improbable experts.
template <int TopK, ComputeScalar C>
inline void share_gates(const C* logits, const Index* chosen, bool of_sigmoids, C* gates) {
  C largest = logits[chosen[0]], sum = 0;
  for (int k = 1; k < TopK; ++k) largest = std::max(largest, logits[chosen[k]]);
  const C shift = of_sigmoids ? std::min(largest, C(0)) : largest;
  for (int k = 0; k < TopK; ++k) {
    const C logit = logits[chosen[k]];
    gates[k] = of_sigmoids ? shifted_sigmoid(logit, shift) : exponential(logit - shift);
    sum += gates[k];
  }
  for (int k = 0; k < TopK; ++k) gates[k] /= sum;
}

}  // namespace detail

/// Upper bound on the scratch of route in bytes per thread, for up to `tokens` tokens.
template <int Experts>
constexpr std::size_t route_thread_scratch(const Device&, Index tokens) {
  using Sums = detail::RouterSums<Experts>;
  return static_cast<std::size_t>(detail::most_row_chunks(tokens, 8 * Experts, Sums::most())) * sizeof(Sums);
}

/// Probabilities, chosen experts, gates and statistics.
template <ComputeScalar C, int Experts, int TopK, class B>
void route(Device& device, const Router<C, Experts, TopK, B>& router) {
  static_assert(1 <= TopK && TopK <= Experts, "a router chooses 1 to Experts experts for each token");
  using Sums = detail::RouterSums<Experts>;
  static_assert(sizeof(Sums) <= Device::thread_scratch_bytes, "too many experts for a router");
  // A probability below exp(-700) (double) or exp(-80) (float) adds nothing to the entropy, not even 0 · infinity.
  constexpr C least = sizeof(C) == 8 ? C(-700) : C(-80);
  const C scale = gate_factor(router);

  const Index tokens = router.logits.rows;
  const detail::Chunks chunks = detail::row_chunks(tokens, 8 * Experts, Sums::most());
  Sums* const sums = reinterpret_cast<Sums*>(device.thread_scratch(route_thread_scratch<Experts>(device, tokens))(0));
  device.parallel(chunks.chunks(), [&](Index chunk, int) {
    Sums& sum = sums[chunk];
    sum = {};
    for (Index t = chunks.first(chunk); t < chunks.last(chunk); ++t) {
      const C* logits = router.logits.row(t);
      C* probabilities = router.probabilities.row(t);
      const C largest = detail::sweep_max<C>(logits, Experts);
      const C total = detail::sweep_sum<C>(Experts, [=]<class P>(Index e, P partial) {
        const P power = exponential(load<P>(logits + e) - largest);
        store(probabilities + e, power);
        return partial + power;
      });
      const C reciprocal = C(1) / total;
      const C mean_exponent = detail::sweep_sum<C>(Experts, [=]<class P>(Index e, P partial) {
        const P p = load<P>(probabilities + e) * reciprocal;
        store(probabilities + e, p);
        return fma(p, max(load<P>(logits + e) - largest, least), partial);
      });
      const double log_total = std::log(double(total));
      const double log_sum_exp = double(largest) + log_total;
      router.log_sum_exp[t] = static_cast<C>(log_sum_exp);
      const bool counted = counts(router.targets, t);
      if (counted) {
        sum.counted += 1;
        sum.entropy += log_total - double(mean_exponent);
        sum.square_log_sum_exp += log_sum_exp * log_sum_exp;
        for (int e = 0; e < Experts; ++e) sum.probability[e] += double(probabilities[e]);
      }

      Index* experts = router.experts + t * TopK;
      C* gates = router.gates + t * TopK;
      const bool is_biased = router.selection_bias != nullptr;
      if (is_biased) {
        detail::select_biased(router, logits, probabilities, experts);
      } else {
        // By logit rather than by probability: the order is the same, but rounding creates no ties.
        detail::select_top_k<Experts, TopK>(logits, largest, experts);
      }
      C chosen = 0;
      for (int k = 0; k < TopK; ++k) {
        sum.load[experts[k]] += counted ? 1 : 0;
        gates[k] = probabilities[experts[k]];
        chosen += gates[k];
      }
      // 0, or NaN if any of the token's logits is: added to gates that are computed from the chosen logits alone.
      const C nan_or_zero = total - total;
      if (router.order == GateOrder::top_k_then_softmax && !is_biased) {
        for (int k = 0; k < TopK; ++k) gates[k] /= chosen;
      } else if (router.order == GateOrder::top_k_then_softmax) {
        detail::share_gates<TopK>(logits, experts, false, gates);
        for (int k = 0; k < TopK; ++k) gates[k] += nan_or_zero;
      } else if (router.order == GateOrder::sigmoid_then_top_k && router.normalised) {
        detail::share_gates<TopK>(logits, experts, true, gates);
        for (int k = 0; k < TopK; ++k) gates[k] += nan_or_zero;
        for (int k = 0; k < TopK; ++k) router.sigmoids[t * TopK + k] = sigmoid(logits[experts[k]]);
      } else if (router.order == GateOrder::sigmoid_then_top_k) {
        for (int k = 0; k < TopK; ++k) gates[k] = sigmoid(logits[experts[k]]) + nan_or_zero;
      }
      for (int k = 0; k < TopK; ++k) gates[k] *= scale;
    }
  });

  Sums all = {};
  for (Index chunk = 0; chunk < chunks.chunks(); ++chunk) {
    for (int e = 0; e < Experts; ++e) all.load[e] += sums[chunk].load[e];
    for (int e = 0; e < Experts; ++e) all.probability[e] += sums[chunk].probability[e];
    all.entropy += sums[chunk].entropy;
    all.square_log_sum_exp += sums[chunk].square_log_sum_exp;
    all.counted += sums[chunk].counted;
  }
  std::copy_n(all.load, Experts, router.load);
  std::copy_n(all.probability, Experts, router.probability);
  *router.counted = all.counted;
  *router.entropy = all.entropy;
  *router.square_log_sum_exp = all.square_log_sum_exp;
}

/// The gradient with respect to the logits, from that of the gates and from the auxiliary losses.
template <ComputeScalar C, int Experts, int TopK>
void router_backward(Device& device, const RouterBackward<C, Experts, TopK>& router) {
  const Index tokens = router.probabilities.rows;
  if (tokens == 0) return;
  const double divisor = std::max(*router.counted, 1.0);
  alignas(64) C balance[array_size<
      Experts>];  // gradient of the balance loss with respect to each probability, the same for all counted tokens
  for (int e = 0; e < Experts; ++e) {
    balance[e] = static_cast<C>(router.balance * Experts * router.load[e] / (divisor * TopK) / divisor);
  }
  const C z_of_counted = static_cast<C>(2 * router.z / divisor);
  const C scale = static_cast<C>(router.scale), unscale = static_cast<C>(1 / router.scale);

  detail::for_rows(device, tokens, 8 * Experts, [&](Index first, Index last) {
    alignas(64) C dp[array_size<Experts>];
    for (Index t = first; t < last; ++t) {
      const C* p = router.probabilities.row(t);
      const Index* experts = router.experts + t * TopK;
      const C* gates = router.gates + t * TopK;
      const C* dgates = router.dgates + t * TopK;
      C* dlogits = router.dlogits.row(t);

      const bool counted = counts(router.targets, t);
      const C z = counted ? z_of_counted : C(0);
      if (counted) {
        std::copy_n(balance, Experts, dp);
      } else {
        std::fill_n(dp, Experts, C(0));
      }
      if (router.order == GateOrder::softmax_then_top_k) {
        for (int k = 0; k < TopK; ++k) dp[experts[k]] += scale * dgates[k];
      }
      const C dot = detail::sweep_sum<C>(
          Experts, [&]<class P>(Index e, P sum) { return fma(load<P>(dp + e), load<P>(p + e), sum); });
      const C shift = z * router.log_sum_exp[t] - dot;
      detail::sweep<C>(Experts,
                       [&]<class P>(Index e) { store(dlogits + e, load<P>(p + e) * (load<P>(dp + e) + shift)); });
      const bool of_sigmoids = router.order == GateOrder::sigmoid_then_top_k;
      if (router.order == GateOrder::top_k_then_softmax || (of_sigmoids && router.normalised)) {
        const C* sigmoids = of_sigmoids ? router.sigmoids + t * TopK : nullptr;
        C gate_dot = 0;
        for (int k = 0; k < TopK; ++k) gate_dot += gates[k] * dgates[k];
        gate_dot *= unscale;
        for (int k = 0; k < TopK; ++k) {
          const C slope = of_sigmoids ? C(1) - sigmoids[k] : C(1);
          dlogits[experts[k]] += slope * gates[k] * (dgates[k] - gate_dot);
        }
      } else if (of_sigmoids) {
        for (int k = 0; k < TopK; ++k) dlogits[experts[k]] += dgates[k] * gates[k] * (C(1) - unscale * gates[k]);
      }
    }
  });
}

/// Moves selection biases against their experts' loads, on one thread: they are few.
template <StorageScalar S>
void update_selection_biases(Device&, const SelectionBiasUpdate<S>& update) {
  if (is_skipped(update)) return;
  for (Index router = 0; router < update.count; ++router) {
    const SelectionBiasPlace& place = update.places[router];
    const double* load = update.report + place.load;
    const double total = std::accumulate(load, load + place.experts, 0.0);
    for (int e = 0; e < place.experts; ++e) update_selection_bias(update, place, e, total);
  }
}

}  // namespace moe_mamba::inline v0_2::cpu
