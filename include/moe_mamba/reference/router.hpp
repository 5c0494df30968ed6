#pragma once

#include <cmath>

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/router.hpp"
#include "moe_mamba/reference/device.hpp"

/// The reference of ops/router.hpp.
namespace moe_mamba::inline v0_2::reference {

template <class C, int Experts, int TopK, class B>
void route(Device&, const Router<C, Experts, TopK, B>& router) {
  static_assert(1 <= TopK && TopK <= Experts, "a router chooses 1 to Experts experts for each token");
  const Index tokens = router.logits.rows;
  double entropy = 0, square = 0, counted = 0;
  for (Index t = 0; t < tokens; ++t) counted += counts(router.targets, t) ? 1 : 0;
  *router.counted = counted;
  const double scale = router.selection_bias == nullptr ? router.scale : double(gate_factor(router));
  for (int e = 0; e < Experts; ++e) router.load[e] = router.probability[e] = 0;
  for (Index t = 0; t < tokens; ++t) {
    const C* logits = router.logits.row(t);
    double largest = double(logits[0]);
    for (int e = 1; e < Experts; ++e) largest = double(logits[e]) > largest ? double(logits[e]) : largest;
    double sum = 0;
    for (int e = 0; e < Experts; ++e) sum += std::exp(double(logits[e]) - largest);
    const double log_sum_exp = largest + std::log(sum);
    for (int e = 0; e < Experts; ++e) {
      const double p = std::exp(double(logits[e]) - log_sum_exp);
      router.probabilities(t, e) = C(p);
      if (!counts(router.targets, t)) continue;
      router.probability[e] += p;
      if (!(p == 0)) entropy -= p * std::log(p);
    }
    router.log_sum_exp[t] = C(log_sum_exp);
    if (counts(router.targets, t)) square += log_sum_exp * log_sum_exp;

    // Without a bias, experts are chosen by logit rather than by probability: the order is the same, but rounding
    // creates no ties.
    const bool of_sigmoids = router.order == GateOrder::sigmoid_then_top_k;
    double order[array_size<Experts>];
    for (int e = 0; e < Experts; ++e) {
      const double logit = double(logits[e]);
      order[e] = router.selection_bias == nullptr ? logit
                                                  : (of_sigmoids ? sigmoid(logit) : std::exp(logit - log_sum_exp)) +
                                                        double(router.selection_bias[e]);
    }
    Index* experts = router.experts + t * TopK;
    double chosen = 0;  // the sum of the chosen experts' probabilities, or of their sigmoids
    for (int k = 0; k < TopK; ++k) {
      Index best = -1;
      for (Index e = 0; e < Experts; ++e) {
        bool taken = false;
        for (int earlier = 0; earlier < k; ++earlier) taken = taken || experts[earlier] == e;
        if (!taken && (best < 0 || order[e] > order[best])) best = e;
      }
      experts[k] = best;
      router.load[best] += counts(router.targets, t) ? 1 : 0;
      const double logit = double(logits[best]);
      chosen += of_sigmoids ? sigmoid(logit) : std::exp(logit - log_sum_exp);
    }
    const bool divided = router.order == GateOrder::top_k_then_softmax || (of_sigmoids && router.normalised);
    for (int k = 0; k < TopK; ++k) {
      const double logit = double(logits[experts[k]]);
      const double score = of_sigmoids ? sigmoid(logit) + (sum - sum)  // NaN if any of the token's logits is
                                       : std::exp(logit - log_sum_exp);
      router.gates[t * TopK + k] = C(scale * (divided ? score / chosen : score));
      if (of_sigmoids && router.normalised) router.sigmoids[t * TopK + k] = C(sigmoid(logit));
    }
  }
  *router.entropy = entropy;
  *router.square_log_sum_exp = square;
}

template <class C, int Experts, int TopK>
void router_backward(Device&, const RouterBackward<C, Experts, TopK>& router) {
  const Index tokens = router.probabilities.rows;
  const double counted = *router.counted;
  for (Index t = 0; t < tokens; ++t) {
    const double balance = counts(router.targets, t) ? router.balance : 0, z = counts(router.targets, t) ? router.z : 0;
    const double divisor = counted > 0 ? counted : 1;
    const C* p = router.probabilities.row(t);
    const Index* experts = router.experts + t * TopK;
    const C* gates = router.gates + t * TopK;
    const C* dgates = router.dgates + t * TopK;

    double dp[array_size<Experts>];  // from the balance loss, and from the gates if they are probabilities
    for (int e = 0; e < Experts; ++e) {
      dp[e] = balance * Experts * router.load[e] / (divisor * TopK) / divisor;
    }
    if (router.order == GateOrder::softmax_then_top_k) {
      for (int k = 0; k < TopK; ++k) dp[experts[k]] += router.scale * double(dgates[k]);
    }
    double dot = 0;
    for (int e = 0; e < Experts; ++e) dot += dp[e] * double(p[e]);

    double dlogits[array_size<Experts>];
    for (int e = 0; e < Experts; ++e) {
      dlogits[e] = double(p[e]) * (dp[e] - dot + z * 2 * double(router.log_sum_exp[t]) / divisor);
    }
    double gate_dot = 0;
    for (int k = 0; k < TopK; ++k) gate_dot += double(gates[k]) / router.scale * double(dgates[k]);
    for (int k = 0; k < TopK; ++k) {
      const double gate = double(gates[k]), dgate = double(dgates[k]);
      if (router.order == GateOrder::top_k_then_softmax) {
        dlogits[experts[k]] += gate * (dgate - gate_dot);
      } else if (router.order == GateOrder::sigmoid_then_top_k && router.normalised) {
        dlogits[experts[k]] += gate * (1 - double(router.sigmoids[t * TopK + k])) * (dgate - gate_dot);
      } else if (router.order == GateOrder::sigmoid_then_top_k) {
        dlogits[experts[k]] += dgate * gate * (1 - gate / router.scale);
      }
    }
    for (int e = 0; e < Experts; ++e) router.dlogits(t, e) = C(dlogits[e]);
  }
}

template <class S>
void update_selection_biases(Device&, const SelectionBiasUpdate<S>& update) {
  if (update.squares != nullptr && !std::isfinite(update.scale * std::sqrt(*update.squares))) return;
  for (Index router = 0; router < update.count; ++router) {
    const SelectionBiasPlace& place = update.places[router];
    const double* load = update.report + place.load;
    double mean = 0;
    for (int e = 0; e < place.experts; ++e) mean += load[e] / place.experts;
    for (int e = 0; e < place.experts; ++e) {
      const Index i = place.bias + e;
      if (i < update.begin || i >= update.end) continue;
      const double excess = load[e] - mean, rounding = 1e-12 * mean;
      const double sign = excess > rounding ? -1 : excess < -rounding ? 1 : 0;
      if constexpr (SelectionBiasUpdate<S>::keeps_remainder) {
        const double old = double(join_float({update.parameters[i], update.remainder[i]}));
        const SplitFloat halves = split_float(float(old + update.rate * sign));
        update.parameters[i] = halves.upper;
        update.remainder[i] = halves.remainder;
      } else {
        update.parameters[i] = S(double(update.parameters[i]) + update.rate * sign);
      }
    }
  }
}

}  // namespace moe_mamba::inline v0_2::reference
