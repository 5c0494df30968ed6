#pragma once

#include <cmath>

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/router.hpp"
#include "moe_mamba/reference/device.hpp"

/// The reference of ops/router.hpp.
namespace moe_mamba::inline v0_2::reference {

template <class C, int Experts, int TopK>
void route(Device&, const Router<C, Experts, TopK>& router) {
  static_assert(1 <= TopK && TopK <= Experts, "a router chooses 1 to Experts experts for each token");
  const Index tokens = router.logits.rows;
  double entropy = 0, square = 0, counted = 0;
  for (Index t = 0; t < tokens; ++t) counted += counts(router.targets, t) ? 1 : 0;
  *router.counted = counted;
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

    // The larger logit has the larger probability; logits tie exactly where probabilities do, without their rounding.
    Index* experts = router.experts + t * TopK;
    double chosen = 0;
    for (int k = 0; k < TopK; ++k) {
      Index best = -1;
      for (Index e = 0; e < Experts; ++e) {
        bool taken = false;
        for (int earlier = 0; earlier < k; ++earlier) taken = taken || experts[earlier] == e;
        if (!taken && (best < 0 || logits[e] > logits[best])) best = e;
      }
      experts[k] = best;
      router.load[best] += counts(router.targets, t) ? 1 : 0;
      chosen += std::exp(double(logits[best]) - log_sum_exp);
    }
    const double divisor = router.order == GateOrder::softmax_then_top_k ? 1.0 : chosen;
    for (int k = 0; k < TopK; ++k) {
      const double logit = double(logits[experts[k]]);
      router.gates[t * TopK + k] = C(router.order == GateOrder::sigmoid_then_top_k
                                         ? sigmoid(logit) + (sum - sum)  // a NaN among the others shows as well
                                         : std::exp(logit - log_sum_exp) / divisor);
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

    double dp[array_size<Experts>];  // from the balance loss, and from the gates where they are probabilities
    for (int e = 0; e < Experts; ++e) {
      dp[e] = balance * Experts * router.load[e] / (divisor * TopK) / divisor;
    }
    if (router.order == GateOrder::softmax_then_top_k) {
      for (int k = 0; k < TopK; ++k) dp[experts[k]] += double(dgates[k]);
    }
    double dot = 0;
    for (int e = 0; e < Experts; ++e) dot += dp[e] * double(p[e]);

    double dlogits[array_size<Experts>];
    for (int e = 0; e < Experts; ++e) {
      dlogits[e] = double(p[e]) * (dp[e] - dot + z * 2 * double(router.log_sum_exp[t]) / divisor);
    }
    if (router.order == GateOrder::top_k_then_softmax) {
      double gate_dot = 0;
      for (int k = 0; k < TopK; ++k) gate_dot += double(gates[k]) * double(dgates[k]);
      for (int k = 0; k < TopK; ++k) dlogits[experts[k]] += double(gates[k]) * (double(dgates[k]) - gate_dot);
    }
    if (router.order == GateOrder::sigmoid_then_top_k) {
      for (int k = 0; k < TopK; ++k) {
        dlogits[experts[k]] += double(dgates[k]) * double(gates[k]) * (1 - double(gates[k]));
      }
    }
    for (int e = 0; e < Experts; ++e) router.dlogits(t, e) = C(dlogits[e]);
  }
}

}  // namespace moe_mamba::inline v0_2::reference
