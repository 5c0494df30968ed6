#pragma once

#include <array>

#include "moe_mamba/cpu/pieces.hpp"
#include "moe_mamba/ops/optimizer.hpp"

/// Operations on whole parameter arrays on the CPU; the contract is in ops/optimizer.hpp.
namespace moe_mamba::cpu {

/// *sum = Σ values[i]² in double, in at most 64 pieces whose sums are added in their order.
template <ComputeScalar C>
void sum_of_squares(Device& device, const C* values, Index count, double* sum) {
  std::array<double, 64> sums = {};
  constexpr Index limit = static_cast<Index>(sums.size());
  const detail::Pieces pieces{count, std::max(Index(1) << 16, ceiling_divide(count, limit))};
  device.parallel(pieces.pieces(), [&](Index piece, int) {
    const Index first = pieces.first(piece);
    sums[static_cast<std::size_t>(piece)] = detail::square_sum(values + first, pieces.last(piece) - first);
  });
  *sum = 0;
  for (const double part : sums) *sum += part;
}

namespace detail {

/// The lanes of `value`, rounded to S as its constructor does.
template <StorageScalar S, PacketLike P>
[[gnu::always_inline]] inline void store_rounded(S* to, const P& value) {
  using C = scalar_of<P>;
  if constexpr (std::is_same_v<S, C>) {
    store<P>(to, value);
  } else if constexpr (std::is_same_v<P, C>) {
    *to = S(value);
#if defined(EIGEN_VECTORIZE_AVX512)
  } else if constexpr (std::is_same_v<S, bfloat16> && lanes<P> == 16) {
    const __m512i words = _mm512_castps_si512(value.native), upper = _mm512_srli_epi32(words, 16);
    const __m512i odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
    const __m512i rounded =
        _mm512_srli_epi32(_mm512_add_epi32(words, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    const __mmask16 nan = _mm512_cmp_ps_mask(value.native, value.native, _CMP_UNORD_Q);
    const __m512i quiet = _mm512_or_si512(upper, _mm512_set1_epi32(0x40));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                        _mm512_cvtepi32_epi16(_mm512_mask_blend_epi32(nan, rounded, quiet)));
#elif defined(EIGEN_VECTORIZE_AVX2)
  } else if constexpr (std::is_same_v<S, bfloat16> && lanes<P> == 8) {
    const __m256i words = _mm256_castps_si256(value.native), upper = _mm256_srli_epi32(words, 16);
    const __m256i odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
    const __m256i rounded =
        _mm256_srli_epi32(_mm256_add_epi32(words, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(value.native, value.native, _CMP_UNORD_Q));
    const __m256i quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
    const __m256i result = _mm256_blendv_epi8(rounded, quiet, nan);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                     _mm_packus_epi32(_mm256_castsi256_si128(result), _mm256_extracti128_si256(result, 1)));
#endif
  } else {
    alignas(64) C buffer[lanes<P>];
    store<P>(buffer, value);
    for (Index i = 0; i < lanes<P>; ++i) to[i] = S(buffer[i]);
  }
}

/// Where the stored elements are the rounding of the master ones, these; else the stored ones.
template <StorageScalar S, PacketLike P>
[[gnu::always_inline]] inline P master_or_stored(const scalar_of<P>* master, const S* stored) {
  S rounded[lanes<P>];
  const P exact = load<P>(master), actual = load_widened<P>(stored);
  store_rounded<S, P>(rounded, exact);
  return select_equal(load_widened<P>(rounded), actual, exact, actual);
}

}  // namespace detail

/// One AdamW update, one pass over the arrays; none where the norm of the gradient is not finite.
template <ComputeScalar C, StorageScalar S>
void adamw(Device& device, const AdamWUpdate<C, S>& update) {
  const C scale = static_cast<C>(gradient_scale(update)), rate = static_cast<C>(-update.rate);
  if (scale != scale) return;
  const C keep1 = static_cast<C>(update.beta1), take1 = static_cast<C>(1 - update.beta1);
  const C keep2 = static_cast<C>(update.beta2), take2 = static_cast<C>(1 - update.beta2);
  const C correct1 = static_cast<C>(1 / update.correction1), correct2 = static_cast<C>(1 / update.correction2);
  const C epsilon = static_cast<C>(update.epsilon);

  // Elements that lie together and decay alike.
  const auto stretch = [&](Index first, Index last, C decay) {
    S* parameters = update.parameters + first;
    C* master = update.master == nullptr ? nullptr : update.master + first;
    const C* gradient = update.gradient + first;
    C* first_moment = update.first_moment + first;
    C* second_moment = update.second_moment + first;
    detail::sweep<C>(last - first, [=]<class P>(Index i) {
      const P g = mul(broadcast<P>(scale), load<P>(gradient + i));
      const P m = fma(broadcast<P>(take1), g, mul(broadcast<P>(keep1), load<P>(first_moment + i)));
      const P v = fma(mul(broadcast<P>(take2), g), g, mul(broadcast<P>(keep2), load<P>(second_moment + i)));
      const P deviation = sqrt(mul(broadcast<P>(correct2), v));
      const P adapted = div(mul(broadcast<P>(correct1), m), add(deviation, broadcast<P>(epsilon)));
      const P old = master != nullptr ? detail::master_or_stored<S, P>(master + i, parameters + i)
                                      : load_widened<P>(parameters + i);
      const P updated = fma(broadcast<P>(rate), fma(broadcast<P>(decay), old, adapted), old);
      store<P>(first_moment + i, m);
      store<P>(second_moment + i, v);
      if (master != nullptr) store<P>(master + i, updated);
      detail::store_rounded<S, P>(parameters + i, updated);
    });
  };

  const detail::Pieces pieces{update.count, detail::task_elements};
  device.parallel(pieces.pieces(), [&](Index piece, int) {
    const Index end = pieces.last(piece);
    Index first = pieces.first(piece), toggle = toggles_until(first, update.decay_toggles, update.toggle_count);
    for (; first < end; ++toggle) {
      const Index last = toggle < update.toggle_count ? std::min(end, update.decay_toggles[toggle]) : end;
      stretch(first, last, toggle % 2 == 1 ? static_cast<C>(update.decay) : C(0));
      first = last;
    }
  });
}

}  // namespace moe_mamba::cpu
