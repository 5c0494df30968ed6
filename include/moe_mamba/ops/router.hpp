#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/split_float.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/masked_target.hpp"

/// Routing of tokens to experts (Shazeer et al. 2017; Fedus et al. 2021, arXiv 2101.03961).
///
///   route(device, Router<C, E, K>{…})                     probabilities, the K chosen experts of each token, their gates
///   router_backward(device, RouterBackward<C, E, K>{…})   the gradient of the logits, auxiliary losses included
///   update_selection_biases(device, SelectionBiasUpdate<S>{…})   moves biases against their experts' loads
///
/// p = softmax(logits); the K experts with the largest p are chosen, ties go to the lowest expert index, best first.
/// Gates: softmax_then_top_k: g = p (Switch); top_k_then_softmax: g = softmax over the chosen logits (Mixtral);
/// sigmoid_then_top_k: g = sigmoid(logit) (BlackMamba), which grows with the logit as p does, so that the same experts
/// are chosen; a NaN or infinity among a token's logits makes its gates NaN in all three. With a selection bias b (Wang
/// et al. 2024, arXiv 2408.15664) the K experts with the largest score + b are chosen, ties of the sums to the lowest
/// index; the score is p, or sigmoid(logit) with sigmoid_then_top_k. Gates are computed from the scores without b,
/// which has no gradient. A NaN among the sums makes the choice arbitrary, but within range and without repetition; a
/// NaN in b makes all gates NaN. Normalised gates, with sigmoid_then_top_k only (DeepSeek-AI 2024, arXiv 2412.19437): g
/// = sigmoid(logit) / Σ of the chosen ones. (p over the sum of the chosen ones is top_k_then_softmax.) At last, gates
/// are multiplied by a scale c: G = c g. With s = sigmoid(logit), dlogit = dG · G (1 - s), and of normalised gates G (1
/// - s) (dG - Σ_j g_j dG_j). Balance loss: balance · E · Σ_i f_i P_i with f_i the share of the T·K assignments that
/// went to i (before any capacity limit; no gradient) and P_i the mean of p_i over the tokens: it equals `balance` for
/// an even distribution and any K. z-loss (Zoph et al. 2022, arXiv 2202.08906): z · mean over tokens of
/// logsumexp(logits)². If targets are given, tokens with a masked target are routed like others, but are not counted in
/// loads, means, entropies and the T tokens of the losses, and get no gradient from these. Update of a selection bias:
/// b_e += rate · sign(mean load - load_e), with sign(0) = 0; the sign is exact.
namespace moe_mamba::inline v0_2 {

enum class GateOrder { softmax_then_top_k, top_k_then_softmax, sigmoid_then_top_k };

/// B is the type of the selection bias.
template <class C, int Experts, int TopK, class B = C>
struct Router {
  GateOrder order;
  MatrixView<const C> logits;   // (T, E)
  MatrixView<C> probabilities;  // (T, E)
  C* log_sum_exp;               // (T)
  Index* experts;               // (T, K), best first
  C* gates;                     // (T, K)
  // Sums over the counted tokens, overwritten. They may be added up over several batches; router_means() divides them.
  double* load;                       // (E): assignments to each expert
  double* probability;                // (E): p
  double* entropy;                    // -Σ p log p, in nats
  double* square_log_sum_exp;         // log_sum_exp²
  double* counted;                    // 1: the number of counted tokens
  const Token* targets = nullptr;     // (T), token ids or masked_target; null: all tokens are counted
  const B* selection_bias = nullptr;  // (E) or null
  bool normalised = false;            // with sigmoid_then_top_k only
  double scale = 1;                   // c, > 0
  C* sigmoids = nullptr;              // (T, K): of the chosen logits, written where normalised, for the backward pass
};

/// The factor of the gates: the router's scale, or a NaN of its selection bias.
template <class C, int Experts, int TopK, class B>
MOE_MAMBA_HOST_DEVICE constexpr C gate_factor(const Router<C, Experts, TopK, B>& router) {
  C factor = static_cast<C>(router.scale);
  if (router.selection_bias == nullptr) return factor;
  for (int e = 0; e < Experts; ++e) {
    const C bias = static_cast<C>(router.selection_bias[e]);
    if (bias != bias) factor = bias;
  }
  return factor;
}

template <class C, int Experts, int TopK>
struct RouterBackward {
  GateOrder order;
  MatrixView<const C> probabilities;  // as written by the forward pass
  const C* log_sum_exp;
  const Index* experts;
  const C* gates;
  const double* load;
  const C* dgates;        // (T, K): gradient of the loss w.r.t. each gate; 0 for a dropped assignment
  double balance;         // coefficient of the balance loss, including a loss scale
  double z;               // coefficient of the z-loss, likewise
  MatrixView<C> dlogits;  // (T, E), overwritten
  const double* counted;  // as written by the forward pass
  const Token* targets = nullptr;
  bool normalised = false;  // as in the forward pass
  double scale = 1;
  const C* sigmoids = nullptr;
};

/// The offset of a router's selection bias among a model's parameters, and that of its experts' loads in a model's
/// report.
struct SelectionBiasPlace {
  Index bias, load;  // offsets
  int experts;
};

/// For bfloat16 parameters, a bias is the float whose halves they and their remainders are (core/split_float.hpp).
template <class S>
struct SelectionBiasUpdate {
  static constexpr bool keeps_remainder = !std::same_as<S, compute_t<S>>;

  const SelectionBiasPlace* places;  // (count), in the device's memory
  Index count;                       // of routers
  S* parameters;                     // all of a model's, of which only biases are touched
  std::int16_t* remainder;           // all of the lower halves, likewise; null if S is its compute type
  const double* report;              // whose loads may be sums over several batches
  double rate;                       // >= 0
  /// The sum of squares of the gradient that the other parameters are updated by, or null: if `scale` times its root is
  /// not finite, nothing changes, as in AdamWUpdate. In the device's memory.
  const double* squares = nullptr;
  double scale = 1;
  Index begin = 0, end = std::numeric_limits<Index>::max();  // only parameters begin … end - 1 are touched
};

/// Whether an update is to be skipped.
template <class S>
MOE_MAMBA_HOST_DEVICE inline bool is_skipped(const SelectionBiasUpdate<S>& update) {
  using std::sqrt;
  if (update.squares == nullptr) return false;
  const double norm = update.scale * sqrt(*update.squares);
  return !(norm - norm == 0);
}

/// Moves expert e's bias, of a router whose experts' loads are `total` together.
template <class S>
MOE_MAMBA_HOST_DEVICE inline void update_selection_bias(const SelectionBiasUpdate<S>& update,
                                                        const SelectionBiasPlace& place, int e, double total) {
  using C = compute_t<S>;
  const Index i = place.bias + e;
  const double load = update.report[place.load + e] * place.experts;  // loads are whole numbers: this is exact
  if (load == total || i < update.begin || i >= update.end) return;
  const C step = static_cast<C>(load < total ? update.rate : -update.rate);
  if constexpr (SelectionBiasUpdate<S>::keeps_remainder) {
    const SplitFloat halves = split_float(join_float({update.parameters[i], update.remainder[i]}) + step);
    update.parameters[i] = halves.upper;
    update.remainder[i] = halves.remainder;
  } else {
    update.parameters[i] += step;
  }
}

/// Means over the counted tokens; all 0 if there are none.
struct RouterMeans {
  double balance;             ///< E · Σ_i f_i P_i: the balance loss without its factor, 1 for an even distribution
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

/// sigmoid(logit) · exp(-shift), for a shift that is the largest of some logits or 0, whichever is less: quotients of
/// sigmoids that are too small for their type. A NaN logit gives NaN.
template <class C>
MOE_MAMBA_HOST_DEVICE inline C shifted_sigmoid(C logit, C shift) {
  using std::exp;
  if (logit >= C(0)) return C(1) / (C(1) + exp(-logit));
  return exp(logit - shift) / (C(1) + exp(logit));
}

/// Whether a token is counted.
MOE_MAMBA_HOST_DEVICE constexpr bool counts(const Token* targets, Index token) {
  return targets == nullptr || targets[token] != masked_target;
}

}  // namespace moe_mamba::inline v0_2
