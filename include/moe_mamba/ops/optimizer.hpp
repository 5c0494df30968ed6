#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>

#include "moe_mamba/core/annotation.hpp"
#include "moe_mamba/core/split_float.hpp"
#include "moe_mamba/core/view.hpp"

/// Operations on whole parameter arrays.
///
///   sum_of_squares(device, values, count, sum)       *sum = Σ values², in double, in an order that depends only on count
///   adamw(device, AdamWUpdate<C, S>{…})              one update (Loshchilov & Hutter 2019, arXiv 1711.05101):
///        g = gradient_scale(…) · gradient;  m = β₁ m + (1 - β₁) g;  v = β₂ v + (1 - β₂) g²
///        w = w - rate · (m / (1 - β₁ᵗ) / (sqrt(v / (1 - β₂ᵗ)) + ε) + decay · w)
///      One call covers a model's whole array, in which ranges given by boundaries decay and others do not.
///      For bfloat16 parameters, w is the float whose halves they and their remainders are (core/split_float.hpp). A
///      parameter that was written since the last update has the written value, up to half a unit in its last place.
namespace moe_mamba::inline v0_2 {

template <class C, class S>
struct AdamWUpdate {
  static_assert(std::same_as<C, compute_t<S>>,
                "AdamW works on float parameters in float, on double ones in double, and on bfloat16 ones in float");
  /// Whether a parameter is only the upper half of its weight.
  static constexpr bool keeps_remainder = !std::same_as<S, C>;

  Index count;              // elements
  S* parameters;            // (count), overwritten
  std::int16_t* remainder;  // (count), the lower halves, overwritten; null if S is C
  const C* gradient;        // (count)
  C* first_moment;          // (count), m
  C* second_moment;         // (count), v
  double scale;             // the gradient is multiplied by this
  double rate;              // learning rate of this step
  double beta1, beta2, epsilon;
  double decay;
  /// (boundary_count), ascending, in the device's memory: the offsets at which ranges with weight decay begin and end in
  /// turn; elsewhere there is no decay. An array that decays from its start has the boundary 0. Two equal boundaries have no
  /// effect, nor have those after the last element.
  const Index* decay_boundaries;
  Index boundary_count;
  double correction1;  // 1 - β₁ᵗ
  double correction2;  // 1 - β₂ᵗ
  /// The sum of squares of the whole gradient, unscaled, or null. If given, a gradient whose scaled norm exceeds clip_norm
  /// (0: no limit) is scaled down to that norm, and one whose norm is not finite changes nothing. In the device's memory, so
  /// that the host need not wait for the norm.
  const double* squares = nullptr;
  double clip_norm = 0;
  Index first = 0;  // the offset of element 0, to which boundaries refer, if this is a part of an array
};

/// The factor of an update's gradient, including clipping; NaN if the update must be skipped.
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

/// Sets the weight of element i.
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

/// The number of ascending `boundaries` at or before `element`, which decays if that is odd.
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
