#pragma once

#include <cmath>

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/masked_target.hpp"
#include "moe_mamba/ops/reference.hpp"

/// Routing of tokens to experts (Shazeer et al. 2017; Fedus et al. 2021, arXiv 2101.03961).
///
///   route(device, Router<C, E, K>{…})                     probabilities, the K chosen experts of each token, their gates
///   router_backward(device, RouterBackward<C, E, K>{…})   the gradient of the logits, auxiliary losses included
///
/// p = softmax(logits); the K experts with the largest p are chosen, ties go to the lowest expert index, best first. Gates:
/// softmax_then_top_k: g = p (Switch); top_k_then_softmax: g = softmax over the chosen logits (Mixtral);
/// sigmoid_then_top_k: g = sigmoid(logit) (BlackMamba), which grows with the logit as p does, so that the same experts are
/// chosen; a NaN or infinity among a token's logits makes its gates NaN in every order.
/// Balance loss: balance · E · Σ_i f_i P_i with f_i the share of the T·K assignments that went to i (before any capacity
/// limit; no gradient) and P_i the mean of p_i over the tokens: it equals `balance` when all is even, whatever K.
/// z-loss (Zoph et al. 2022, arXiv 2202.08906): z · mean over tokens of logsumexp(logits)².
/// Where targets are given, tokens whose target is masked are routed like any other, but count neither in a load, a mean or
/// an entropy nor as one of the T tokens of the losses, and get no gradient from these.
namespace moe_mamba {

enum class GateOrder { softmax_then_top_k, top_k_then_softmax, sigmoid_then_top_k };

template <class C, int Experts, int TopK>
struct Router {
  GateOrder order;
  MatrixView<const C> logits;   // (T, E)
  MatrixView<C> probabilities;  // (T, E)
  C* log_sum_exp;               // (T)
  Index* experts;               // (T, K), best first
  C* gates;                     // (T, K)
  // Sums over the tokens that count, overwritten. Those of several batches may be added up; router_means() divides.
  double* load;                    // (E): assignments to each expert
  double* probability;             // (E): p
  double* entropy;                 // -Σ p log p, in nats
  double* square_log_sum_exp;      // log_sum_exp²
  double* counted;                 // 1: how many tokens count
  const Token* targets = nullptr;  // (T), token ids or masked_target; null: all tokens count
};

template <class C, int Experts, int TopK>
struct RouterBackward {
  GateOrder order;
  MatrixView<const C> probabilities;  // as written by the forward pass
  const C* log_sum_exp;
  const Index* experts;
  const C* gates;
  const double* load;
  const C* dgates;        // (T, K): gradient of the loss by each gate; 0 for a dropped assignment
  double balance;         // coefficient of the balance loss, any loss scale included
  double z;               // coefficient of the z-loss, likewise
  MatrixView<C> dlogits;  // (T, E), overwritten
  const double* counted;  // as written by the forward pass
  const Token* targets = nullptr;
};

/// What follows from the sums over the tokens that count; all 0 where none does.
struct RouterMeans {
  double balance;             ///< E · Σ_i f_i P_i: the balance loss without its factor, 1 where all is even
  double square_log_sum_exp;  ///< mean of log_sum_exp²: the z-loss without its factor
  double entropy;             ///< mean of -Σ p log p, in nats
};

/// load and probability: (experts).
constexpr RouterMeans router_means(int experts, int top_k, const double* load, const double* probability,
                                   double entropy, double square_log_sum_exp, double counted) {
  const double divisor = counted > 1 ? counted : 1.0;
  double balance = 0;
  for (int e = 0; e < experts; ++e) balance += load[e] * (probability[e] / divisor);
  return {balance * experts / (divisor * top_k), square_log_sum_exp / divisor, entropy / divisor};
}

/// Whether a token counts.
MOE_MAMBA_HOST_DEVICE constexpr bool counts(const Token* targets, Index token) {
  return targets == nullptr || targets[token] != masked_target;
}

namespace reference {

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

}  // namespace reference
}  // namespace moe_mamba
