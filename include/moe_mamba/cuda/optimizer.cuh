#pragma once

#include <cstdint>

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cuda/common/sums.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/ops/optimizer.hpp"

/// Operations on whole parameter arrays on a CUDA device; the contract is in ops/optimizer.hpp. For an element w with
/// gradient g, which is scaled and clipped first, and moments m and v:
///
///   m ← keep1 m + take1 g    v ← keep2 v + take2 g²
///   w ← w - rate (correct1 m / (sqrt(correct2 v) + epsilon) + decay w)
///
/// where keep and take are β and 1 - β, and correct1 and correct2 are 1 / (1 - βᵗ). A block takes a chunk of elements,
/// and a thread loads vectors of all arrays, updates them in registers and stores them: each array is read and written
/// once.
namespace moe_mamba::inline v0_2::cuda {

namespace detail {

template <class C>
struct SquareElement {
  const C* values;
  __device__ double operator()(Index, Index i) const { return double(values[i]) * double(values[i]); }
};

/// The coefficients of an update in the compute type.
template <class C>
struct AdamWFactors {
  C rate, decay, keep1, take1, keep2, take2, correct1, correct2, epsilon;
};

inline constexpr int adamw_threads = 256;
/// Elements per block: enough to make the binary search for its first boundary negligible.
inline constexpr Index adamw_chunk = 8 * adamw_threads;

/// One block per chunk of adamw_chunk elements; a thread takes vectors of `own` elements, to which arrays are aligned.
/// It counts the boundaries crossed, mostly none, from one element to the next.
template <int own, class C, class S>
__global__ void __launch_bounds__(adamw_threads) adamw_kernel(AdamWUpdate<C, S> update, AdamWFactors<C> factors) {
  constexpr bool halved = AdamWUpdate<C, S>::keeps_remainder;
  const double exact_scale = gradient_scale(update);
  if (exact_scale != exact_scale) return;
  const C scale = static_cast<C>(exact_scale);
  const Index first = blockIdx.x * adamw_chunk, last = min(first + adamw_chunk, update.count);
  Index crossed = boundaries_until(update.first + first, update.decay_boundaries, update.boundary_count);
  const auto next_boundary = [&] {
    return crossed < update.boundary_count ? update.decay_boundaries[crossed] - update.first : last;
  };
  Index boundary = next_boundary();
  for (Index i = first + threadIdx.x * own; i < last; i += adamw_threads * own) {
    const int present = int(min(last - i, Index{own}));
    const auto load = [&]<class T>(const T* from) {
      if (present == own) return *reinterpret_cast<const Vector<T, own>*>(from + i);
      Vector<T, own> run{};
#pragma unroll
      for (int j = 0; j < own; ++j) {
        if (j < present) run.values[j] = from[i + j];
      }
      return run;
    };
    const auto store = [&]<class T>(T* to, const Vector<T, own>& run) {
      if (present == own) {
        *reinterpret_cast<Vector<T, own>*>(to + i) = run;
      } else {
#pragma unroll
        for (int j = 0; j < own; ++j) {
          if (j < present) to[i + j] = run.values[j];
        }
      }
    };
    const auto gradient = load(update.gradient);
    auto first_moment = load(update.first_moment), second_moment = load(update.second_moment);
    auto parameters = load(update.parameters);
    Vector<std::int16_t, own> remainder{};
    if constexpr (halved) remainder = load(update.remainder);
#pragma unroll
    for (int j = 0; j < own; ++j) {
      while (boundary <= i + j && i + j < last) {
        ++crossed;
        boundary = next_boundary();
      }
      const C decay = crossed % 2 == 1 ? factors.decay : C(0);
      const C g = scale * gradient.values[j];
      // With explicit FMAs, so that the result does not depend on `own` and hence on the alignment of arrays.
      const C m = fma(factors.keep1, first_moment.values[j], factors.take1 * g);
      const C v = fma(factors.keep2, second_moment.values[j], factors.take2 * g * g);
      const C adapted = factors.correct1 * m / (sqrt(factors.correct2 * v) + factors.epsilon);
      first_moment.values[j] = m;
      second_moment.values[j] = v;
      const auto updated = [&](C old) { return old - factors.rate * fma(decay, old, adapted); };
      if constexpr (halved) {
        const SplitFloat halves = split_float(updated(join_float({parameters.values[j], remainder.values[j]})));
        parameters.values[j] = halves.upper;
        remainder.values[j] = halves.remainder;
      } else {
        parameters.values[j] = updated(parameters.values[j]);
      }
    }
    store(update.first_moment, first_moment);
    store(update.second_moment, second_moment);
    store(update.parameters, parameters);
    if constexpr (halved) store(update.remainder, remainder);
  }
}

}  // namespace detail

/// *sum = Σ values[i]² in double
template <ComputeScalar C>
void sum_of_squares(Device& device, const C* values, Index count, double* sum) {
  detail::sum_elements(device, 1, count, true, detail::SquareElement<C>{values}, sum);
}

/// One AdamW update in one pass over the arrays; does nothing if the norm of the gradient is not finite.
template <ComputeScalar C, StorageScalar S>
void adamw(Device& device, const AdamWUpdate<C, S>& update) {
  if (update.count == 0) return;
  const detail::AdamWFactors<C> factors{
      .rate = static_cast<C>(update.rate),
      .decay = static_cast<C>(update.decay),
      .keep1 = static_cast<C>(update.beta1),
      .take1 = static_cast<C>(1 - update.beta1),
      .keep2 = static_cast<C>(update.beta2),
      .take2 = static_cast<C>(1 - update.beta2),
      .correct1 = static_cast<C>(1 / update.correction1),
      .correct2 = static_cast<C>(1 / update.correction2),
      .epsilon = static_cast<C>(update.epsilon),
  };
  constexpr int own = 16 / int(sizeof(C));
  const auto aligned = [](const auto* data) {
    return reinterpret_cast<std::uintptr_t>(data) % (own * sizeof(*data)) == 0;
  };
  const bool together = aligned(update.parameters) && aligned(update.remainder) && aligned(update.gradient) &&
                        aligned(update.first_moment) && aligned(update.second_moment);
  const auto kernel = together ? detail::adamw_kernel<own, C, S> : detail::adamw_kernel<1, C, S>;
  const Index blocks = ceiling_divide(update.count, detail::adamw_chunk);
  kernel<<<unsigned(blocks), detail::adamw_threads, 0, device.stream()>>>(update, factors);
  check_launch("adamw_kernel");
}

}  // namespace moe_mamba::inline v0_2::cuda
