#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#include "moe_mamba/cpu/chunks.hpp"
#include "moe_mamba/ops/optimizer.hpp"

/// Operations on whole parameter arrays on the CPU; the contract is in ops/optimizer.hpp.
namespace moe_mamba::inline v0_2::cpu {

/// *sum = Σ values[i]² in double, in at most 64 chunks whose sums are added in order.
template <ComputeScalar C>
void sum_of_squares(Device& device, const C* values, Index count, double* sum) {
  std::array<double, 64> sums = {};
  constexpr Index limit = static_cast<Index>(sums.size());
  const detail::Chunks chunks{count, std::max(Index(1) << 16, ceiling_divide(count, limit))};
  device.parallel(chunks.chunks(), [&](Index chunk, int) {
    const Index first = chunks.first(chunk);
    sums[static_cast<std::size_t>(chunk)] = detail::square_sum(values + first, chunks.last(chunk) - first);
  });
  *sum = 0;
  for (const double part : sums) *sum += part;
}

namespace detail {

/// As many integers as P has lanes, in the compiler's own vector type: on arrays larger than the cache, the code it
/// generates for the few operations below is as fast as intrinsics.
template <class Integer, PacketLike P>
using Integers = Vector<Integer, lanes<P>>;

/// join_float() in every lane.
template <PacketLike P>
[[gnu::always_inline]] inline P load_joined(const bfloat16* upper, const std::int16_t* remainder) {
  if constexpr (lanes<P> == 1) {
    return P(join_float({*upper, *remainder}));
  } else {
    using Words = Integers<std::uint32_t, P>;
    Integers<std::uint16_t, P> halves;
    Integers<std::int16_t, P> rest;
    std::memcpy(&halves, upper, sizeof halves);
    std::memcpy(&rest, remainder, sizeof rest);
    const Words word = __builtin_convertvector(halves, Words) << 16;
    const auto wide = reinterpret<Words>(__builtin_convertvector(rest, Integers<std::int32_t, P>));
    const Words magnitude = (word & 0x7fffffffu) + wide;
    const auto counts = reinterpret<Words>(magnitude < split_float_limit);
    return P(reinterpret<typename P::Native>(word + (wide & counts)));
  }
}

/// split_float() of every lane.
template <PacketLike P>
[[gnu::always_inline]] inline void store_split(bfloat16* upper, std::int16_t* remainder, const P& value) {
  if constexpr (lanes<P> == 1) {
    const SplitFloat halves = split_float(value.native);
    *upper = halves.upper;
    *remainder = halves.remainder;
  } else {
    using Words = Integers<std::uint32_t, P>;
    const auto word = reinterpret<Words>(value.native);
    const Words magnitude = word & 0x7fffffffu;
    // Without ?:, which nvcc's front end does not have for vectors.
    const auto nan = reinterpret<Words>(magnitude > 0x7f800000u);
    const Words rounded = (nan & (word | 0x00400000u)) | (~nan & (word + 0x8000u));
    const auto counts = reinterpret<Words>(magnitude < split_float_limit);
    const auto halves = __builtin_convertvector(rounded >> 16, Integers<std::uint16_t, P>);
    const auto rest = __builtin_convertvector(word & counts, Integers<std::int16_t, P>);
    std::memcpy(static_cast<void*>(upper), &halves, sizeof halves);
    std::memcpy(remainder, &rest, sizeof rest);
  }
}

}  // namespace detail

/// One AdamW update in one pass over the arrays; does nothing if the norm of the gradient is not finite.
template <ComputeScalar C, StorageScalar S>
void adamw(Device& device, const AdamWUpdate<C, S>& update) {
  const C scale = static_cast<C>(gradient_scale(update)), rate = static_cast<C>(-update.rate);
  if (scale != scale) return;
  const C keep1 = static_cast<C>(update.beta1), take1 = static_cast<C>(1 - update.beta1);
  const C keep2 = static_cast<C>(update.beta2), take2 = static_cast<C>(1 - update.beta2);
  const C correct1 = static_cast<C>(1 / update.correction1), correct2 = static_cast<C>(1 / update.correction2);
  const C epsilon = static_cast<C>(update.epsilon);

  // A range of elements with the same weight decay.
  const auto update_range = [&](Index first, Index last, C decay) {
    S* parameters = update.parameters + first;
    std::int16_t* remainder = update.remainder == nullptr ? nullptr : update.remainder + first;
    const C* gradient = update.gradient + first;
    C* first_moment = update.first_moment + first;
    C* second_moment = update.second_moment + first;
    detail::sweep<C>(last - first, [=]<class P>(Index i) {
      const P g = scale * load<P>(gradient + i);
      const P m = fma(take1, g, keep1 * load<P>(first_moment + i));
      const P v = fma(take2 * g, g, keep2 * load<P>(second_moment + i));
      const P deviation = sqrt(correct2 * v);
      const P adapted = correct1 * m / (deviation + epsilon);
      P old;
      if constexpr (AdamWUpdate<C, S>::keeps_remainder) {
        old = detail::load_joined<P>(parameters + i, remainder + i);
      } else {
        old = load<P>(parameters + i);
      }
      const P updated = fma(rate, fma(decay, old, adapted), old);
      store(first_moment + i, m);
      store(second_moment + i, v);
      if constexpr (AdamWUpdate<C, S>::keeps_remainder) {
        detail::store_split<P>(parameters + i, remainder + i, updated);
      } else {
        store(parameters + i, updated);
      }
    });
  };

  const detail::Chunks chunks{update.count, detail::task_elements};
  device.parallel(chunks.chunks(), [&](Index chunk, int) {
    const Index end = chunks.last(chunk);
    Index first = chunks.first(chunk),
          crossed = boundaries_until(update.first + first, update.decay_boundaries, update.boundary_count);
    for (; first < end; ++crossed) {
      const Index last =
          crossed < update.boundary_count ? std::min(end, update.decay_boundaries[crossed] - update.first) : end;
      update_range(first, last, crossed % 2 == 1 ? static_cast<C>(update.decay) : C(0));
      first = last;
    }
  });
}

}  // namespace moe_mamba::inline v0_2::cpu
