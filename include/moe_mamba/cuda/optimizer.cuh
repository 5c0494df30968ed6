#pragma once

#include "moe_mamba/cuda/pieces.cuh"
#include "moe_mamba/ops/optimizer.hpp"

/// Operations on whole parameter arrays on a CUDA device; the contract is in ops/optimizer.hpp.
namespace moe_mamba::cuda {

namespace detail {

template <class C>
struct SquareElement {
  const C* values;
  __device__ double operator()(Index, Index i) const { return double(values[i]) * double(values[i]); }
};

/// The numbers of an update in the compute type.
template <class C>
struct AdamWFactors {
  C rate, decay, keep1, take1, keep2, take2, correct1, correct2, epsilon;
};

inline constexpr int adamw_threads = 256;
/// Elements of a block: enough that its search for its place among the toggles costs nothing.
inline constexpr Index adamw_piece = 8 * adamw_threads;

/// A block for each piece of adamw_piece elements. A thread counts the toggles that it passes, mostly none, on the way
/// from one element to its next.
template <class C, class S>
__global__ void __launch_bounds__(adamw_threads) adamw_kernel(AdamWUpdate<C, S> update, AdamWFactors<C> factors) {
  const double exact_scale = gradient_scale(update);
  if (exact_scale != exact_scale) return;
  const C scale = static_cast<C>(exact_scale);
  const Index first = blockIdx.x * adamw_piece, last = min(first + adamw_piece, update.count);
  Index toggle = toggles_until(first, update.decay_toggles, update.toggle_count);
  const auto next_toggle = [&] { return toggle < update.toggle_count ? update.decay_toggles[toggle] : last; };
  Index boundary = next_toggle();
  for (Index i = first + threadIdx.x; i < last; i += adamw_threads) {
    while (boundary <= i) {
      ++toggle;
      boundary = next_toggle();
    }
    const C decay = toggle % 2 == 1 ? factors.decay : C(0);
    const C g = scale * update.gradient[i];
    const C m = factors.keep1 * update.first_moment[i] + factors.take1 * g;
    const C v = factors.keep2 * update.second_moment[i] + factors.take2 * g * g;
    const C adapted = factors.correct1 * m / (sqrt(factors.correct2 * v) + factors.epsilon);
    const C old = weight_of(update, i);
    update.first_moment[i] = m;
    update.second_moment[i] = v;
    set_weight(update, i, old - factors.rate * (adapted + decay * old));
  }
}

}  // namespace detail

/// *sum = Σ values[i]² in double
template <ComputeScalar C>
void sum_of_squares(Device& device, const C* values, Index count, double* sum) {
  detail::sum_elements(device, 1, count, true, detail::SquareElement<C>{values}, sum);
}

/// One AdamW update, one pass over the arrays; none where the norm of the gradient is not finite.
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
  const Index blocks = ceiling_divide(update.count, detail::adamw_piece);
  detail::adamw_kernel<<<unsigned(blocks), detail::adamw_threads, 0, device.stream()>>>(update, factors);
  check_launch("adamw_kernel");
}

}  // namespace moe_mamba::cuda
