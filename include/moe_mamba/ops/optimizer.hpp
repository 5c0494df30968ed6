#pragma once

#include <cmath>

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/reference.hpp"

/// Operations on whole parameter arrays.
///
///   sum_of_squares(device, values, count)            in double, summed in an order that depends on count alone
///   adamw(device, AdamWUpdate<C, S>{…})              one update (Loshchilov & Hutter 2019, arXiv 1711.05101):
///        g = scale · gradient;  m = β₁ m + (1 - β₁) g;  v = β₂ v + (1 - β₂) g²
///        w = w - rate · (m / (1 - β₁ᵗ) / (sqrt(v / (1 - β₂ᵗ)) + ε) + decay · w);  gradient = 0
///      The gradient is cleared on the way, for the next sum: by itself that would be a pass over memory more.
namespace moe_mamba {

template <class C, class S>
struct AdamWUpdate {
  Index count;       // elements, all of one decay
  S* parameters;     // (count), overwritten
  C* master;         // (count): parameters in the compute type, or null where S is C; the stored ones are its rounding
  C* gradient;       // (count), zero afterwards
  C* first_moment;   // (count), m
  C* second_moment;  // (count), v
  double scale;      // of the gradient: clipping, accumulation
  double rate;       // learning rate of this step
  double beta1, beta2, epsilon;
  double decay;
  double correction1;  // 1 - β₁ᵗ
  double correction2;  // 1 - β₂ᵗ
};

namespace reference {

template <class C>
double sum_of_squares(Device&, const C* values, Index count) {
  double sum = 0;
  for (Index i = 0; i < count; ++i) sum += double(values[i]) * double(values[i]);
  return sum;
}

template <class C, class S>
void adamw(Device&, const AdamWUpdate<C, S>& update) {
  for (Index i = 0; i < update.count; ++i) {
    const double g = update.scale * double(update.gradient[i]);
    const double m = update.beta1 * double(update.first_moment[i]) + (1 - update.beta1) * g;
    const double v = update.beta2 * double(update.second_moment[i]) + (1 - update.beta2) * g * g;
    const double old = update.master != nullptr ? double(update.master[i]) : double(update.parameters[i]);
    const double direction =
        m / update.correction1 / (std::sqrt(v / update.correction2) + update.epsilon) + update.decay * old;
    const C w = C(old - update.rate * direction);
    update.gradient[i] = 0;
    update.first_moment[i] = C(m);
    update.second_moment[i] = C(v);
    if (update.master != nullptr) update.master[i] = w;
    update.parameters[i] = S(w);
  }
}

}  // namespace reference
}  // namespace moe_mamba
