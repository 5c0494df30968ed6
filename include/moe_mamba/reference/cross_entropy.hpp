#pragma once

#include <cmath>
#include <cstddef>

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/cross_entropy.hpp"
#include "moe_mamba/reference/device.hpp"
#include "moe_mamba/reference/linear.hpp"

/// The reference of ops/cross_entropy.hpp.
namespace moe_mamba::inline v0_2::reference {

template <class C>
std::size_t head_cross_entropy_scratch(const Device&, Index /*tokens*/, Index vocabulary, Index /*width*/) {
  Arena counting;
  counting.take<double>(vocabulary);
  return counting.used();
}

template <class C, class S>
void head_cross_entropy(Device&, const HeadCrossEntropy<C, S>& head) {
  const Index width = head.x.columns, vocabulary = head.weight.rows;
  Arena scratch = head.scratch;
  double* logits = scratch.take<double>(vocabulary);
  double loss = 0, targets = 0;
  for (Index t = 0; t < head.x.rows; ++t) targets += head.targets[t] == masked_target ? 0 : 1;
  const double scale = 1 / (head.normaliser > 0 ? double(head.normaliser) : targets > 0 ? targets : 1);
  for (Index t = 0; t < head.x.rows; ++t) {
    const bool masked = head.targets[t] == masked_target;
    double largest = -HUGE_VAL, sum = 0;
    for (Index v = 0; v < vocabulary; ++v) {
      logits[v] = 0;
      for (Index i = 0; i < width; ++i) logits[v] += double(head.x(t, i)) * double(head.weight(v, i));
      largest = logits[v] > largest ? logits[v] : largest;
    }
    for (Index v = 0; v < vocabulary; ++v) sum += std::exp(logits[v] - largest);
    const double log_sum_exp = largest + std::log(sum);
    if (!masked) loss += log_sum_exp - logits[head.targets[t]];
    if (head.dx.data == nullptr) continue;

    for (Index v = 0; v < vocabulary; ++v) {
      const double probability = std::exp(logits[v] - log_sum_exp);
      logits[v] = masked ? 0.0 : scale * (probability - (v == head.targets[t] ? 1.0 : 0.0));  // now its gradient
    }
    for (Index i = 0; i < width; ++i) {
      double sum_of_products = 0;
      for (Index v = 0; v < vocabulary; ++v) {
        sum_of_products += logits[v] * double(head.weight(v, i));
        head.dweight(v, i) = compute_t<C>(double(head.dweight(v, i)) + logits[v] * double(head.x(t, i)));
      }
      head.dx(t, i) = C(sum_of_products);
    }
  }
  head.totals[0] = loss;
  head.totals[1] = targets;
}

}  // namespace moe_mamba::inline v0_2::reference
