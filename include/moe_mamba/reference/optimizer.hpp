#pragma once

#include <cmath>

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/optimizer.hpp"
#include "moe_mamba/reference/device.hpp"

/// The reference of ops/optimizer.hpp.
namespace moe_mamba::inline v0_2::reference {

template <class C>
void sum_of_squares(Device&, const C* values, Index count, double* sum) {
  *sum = 0;
  for (Index i = 0; i < count; ++i) *sum += double(values[i]) * double(values[i]);
}

template <class C, class S>
void adamw(Device&, const AdamWUpdate<C, S>& update) {
  const double scale = gradient_scale(update);
  if (scale != scale) return;
  for (Index i = 0; i < update.count; ++i) {
    double decay = 0;
    for (Index t = 0; t < update.boundary_count && update.decay_boundaries[t] <= update.first + i; ++t)
      decay = update.decay - decay;
    const double g = scale * double(update.gradient[i]);
    const double m = update.beta1 * double(update.first_moment[i]) + (1 - update.beta1) * g;
    const double v = update.beta2 * double(update.second_moment[i]) + (1 - update.beta2) * g * g;
    const double old = double(weight_of(update, i));
    const double direction =
        m / update.correction1 / (std::sqrt(v / update.correction2) + update.epsilon) + decay * old;
    update.first_moment[i] = C(m);
    update.second_moment[i] = C(v);
    set_weight(update, i, C(old - update.rate * direction));
  }
}

}  // namespace moe_mamba::inline v0_2::reference
