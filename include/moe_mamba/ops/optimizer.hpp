#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>

#include "moe_mamba/core/annotation.hpp"
#include "moe_mamba/core/split_float.hpp"
#include "moe_mamba/core/view.hpp"

/// Operations on whole parameter arrays.
///
///   sum_of_squares(device, values, count, sum)       *sum = Σ values², in double, in an order that depends on count alone
///   adamw(device, AdamWUpdate<C, S>{…})              one update (Loshchilov & Hutter 2019, arXiv 1711.05101):
///        g = gradient_scale(…) · gradient;  m = β₁ m + (1 - β₁) g;  v = β₂ v + (1 - β₂) g²
///        w = w - rate · (m / (1 - β₁ᵗ) / (sqrt(v / (1 - β₂ᵗ)) + ε) + decay · w)
///      One call covers a model's whole array, in which some parameters decay and others do not: boundaries say where.
///      Of bfloat16 parameters, w is the float that they and their remainders are the halves of (core/split_float.hpp).
///      A parameter that somebody has written since counts as written, to half a unit in its last place.
namespace moe_mamba::inline v0_2 {

template <class C, class S>
struct AdamWUpdate {
  static_assert(std::same_as<C, compute_t<S>>,
                "AdamW works on float parameters in float, on double ones in double, and on bfloat16 ones in float");
  /// Whether a parameter is one half of its weight only.
  static constexpr bool keeps_remainder = !std::same_as<S, C>;

  Index count;              // elements
  S* parameters;            // (count), overwritten
  std::int16_t* remainder;  // (count), the other halves, overwritten; null where S is C
  const C* gradient;        // (count)
  C* first_moment;          // (count), m
  C* second_moment;         // (count), v
  double scale;             // of the gradient: accumulation
  double rate;              // learning rate of this step
  double beta1, beta2, epsilon;
  double decay;
  /// (boundary_count), ascending, in memory of the device: the offsets where decaying begins and ceases in turn; elsewhere
  /// `decay` counts as 0. An array that decays from its start has the boundary 0. Two equal ones are as none; those
  /// behind the last element have no effect.
  const Index* decay_boundaries;
  Index boundary_count;
  double correction1;  // 1 - β₁ᵗ
  double correction2;  // 1 - β₂ᵗ
  /// The sum of squares of the whole gradient, unscaled, or null. With it, a gradient whose scaled norm is beyond
  /// clip_norm (0: any) is scaled down to that, and one whose norm is not finite changes nothing. Read where the device
  /// works, so that an update need not wait for the norm.
  const double* squares = nullptr;
  double clip_norm = 0;
  Index first = 0;  // where element 0 lies among the offsets that boundaries are, for a part of an array
};

/// What the gradient of an update is multiplied with, clipping included; NaN where the update is to be left out.
template <class C, class S>
MOE_MAMBA_HOST_DEVICE inline double gradient_scale(const AdamWUpdate<C, S>& update) {
  using std::sqrt;
  if (update.squares == nullptr) return update.scale;
  const double norm = update.scale * sqrt(*update.squares);
  if (!(norm - norm == 0)) return norm - norm;  // NaN and infinity
  return update.clip_norm > 0 && norm > update.clip_norm ? update.scale * update.clip_norm / norm : update.scale;
}

/// The weight of element i.
template <class C, class S>
C weight_of(const AdamWUpdate<C, S>& update, Index i) {
  if constexpr (AdamWUpdate<C, S>::keeps_remainder) {
    return join_float({update.parameters[i], update.remainder[i]});
  } else {
    return update.parameters[i];
  }
}

/// Makes `weight` that of element i.
template <class C, class S>
void set_weight(const AdamWUpdate<C, S>& update, Index i, C weight) {
  if constexpr (AdamWUpdate<C, S>::keeps_remainder) {
    const SplitFloat halves = split_float(weight);
    update.parameters[i] = halves.upper;
    update.remainder[i] = halves.remainder;
  } else {
    update.parameters[i] = weight;
  }
}

/// How many of the ascending `boundaries` lie at or before `element`: where that is odd, it decays.
MOE_MAMBA_HOST_DEVICE inline Index boundaries_until(Index element, const Index* boundaries, Index count) {
  Index low = 0, high = count;
  while (low < high) {
    const Index middle = low + (high - low) / 2;
    if (boundaries[middle] <= element) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace moe_mamba::inline v0_2
