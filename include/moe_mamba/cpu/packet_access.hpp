#pragma once

#include <type_traits>

#include "moe_mamba/cpu/packet.hpp"

/// Loads and stores of packets whose elements are too few for all lanes, or of another type.
namespace moe_mamba::cpu {

#if defined(__GNUC__) && !defined(__clang__)  // as in packet.hpp
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-attributes"
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#if defined(EIGEN_VECTORIZE_AVX512)
namespace detail {

/// The first `count` of 16 or 8 lanes.
inline __mmask16 first_lanes(Index count) { return static_cast<__mmask16>((1u << count) - 1); }

}  // namespace detail
#endif

/// The `count` elements at `from`, 0 <= count <= lanes<P>; the lanes after them are `rest`, and not read.
template <PacketLike P>
[[gnu::always_inline]] inline P load_partial(const scalar_of<P>* from, Index count, scalar_of<P> rest = 0) {
#if defined(EIGEN_VECTORIZE_AVX512)
  if constexpr (lanes<P> == 16) {
    return P{_mm512_mask_loadu_ps(_mm512_set1_ps(rest), detail::first_lanes(count), from)};
  } else if constexpr (lanes<P> == 8) {
    return P{_mm512_mask_loadu_pd(_mm512_set1_pd(rest), static_cast<__mmask8>(detail::first_lanes(count)), from)};
  }
#endif
  alignas(64) scalar_of<P> buffer[lanes<P>];
  store<P>(buffer, broadcast<P>(rest));
  for (Index i = 0; i < count; ++i) buffer[i] = from[i];
  return load<P>(buffer);
}

/// Writes the first `count` lanes, 0 <= count <= lanes<P>, and nothing after them.
template <PacketLike P>
[[gnu::always_inline]] inline void store_partial(scalar_of<P>* to, const P& value, Index count) {
#if defined(EIGEN_VECTORIZE_AVX512)
  if constexpr (lanes<P> == 16) {
    _mm512_mask_storeu_ps(to, detail::first_lanes(count), value.native);
    return;
  } else if constexpr (lanes<P> == 8) {
    _mm512_mask_storeu_pd(to, static_cast<__mmask8>(detail::first_lanes(count)), value.native);
    return;
  }
#endif
  alignas(64) scalar_of<P> buffer[lanes<P>];
  store<P>(buffer, value);
  for (Index i = 0; i < count; ++i) to[i] = buffer[i];
}

/// lanes<P> stored elements, converted exactly (double to float rounds) to P's scalar.
template <PacketLike P, StorageScalar S>
[[gnu::always_inline]] inline P load_widened(const S* from) {
  using C = scalar_of<P>;
  if constexpr (std::is_same_v<S, C>) {
    return load<P>(from);
  } else if constexpr (std::is_same_v<P, C>) {
    return static_cast<C>(*from);
#if defined(EIGEN_VECTORIZE_AVX512)
  } else if constexpr (std::is_same_v<S, bfloat16> && lanes<P> == 16) {
    const __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    return P{_mm512_castsi512_ps(_mm512_slli_epi32(words, 16))};
#elif defined(EIGEN_VECTORIZE_AVX2)
  } else if constexpr (std::is_same_v<S, bfloat16> && std::is_same_v<C, float> && lanes<P> == 8) {
    const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    return P{_mm256_castsi256_ps(_mm256_slli_epi32(words, 16))};
#elif defined(EIGEN_VECTORIZE_SSE2) && !defined(EIGEN_VECTORIZE_AVX)
  } else if constexpr (std::is_same_v<S, bfloat16> && std::is_same_v<C, float> && lanes<P> == 4) {
    const __m128i halves = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
    return P{_mm_castsi128_ps(_mm_unpacklo_epi16(_mm_setzero_si128(), halves))};
#endif
  } else {
    alignas(64) C buffer[lanes<P>];
    for (Index i = 0; i < lanes<P>; ++i) buffer[i] = static_cast<C>(from[i]);
    return load<P>(buffer);
  }
}

/// The `count` stored elements at `from`, converted; the lanes after them are zero and not read.
template <PacketLike P, StorageScalar S>
[[gnu::always_inline]] inline P load_widened_partial(const S* from, Index count) {
  if constexpr (std::is_same_v<S, scalar_of<P>>) {
    return load_partial<P>(from, count);
  } else {
    alignas(64) scalar_of<P> buffer[lanes<P>] = {};
    for (Index i = 0; i < count; ++i) buffer[i] = static_cast<scalar_of<P>>(from[i]);
    return load<P>(buffer);
  }
}

/// The `lanes<P>` elements at `from` in double.
template <PacketLike P, ComputeScalar C>
[[gnu::always_inline]] inline P load_as_double(const C* from) {
  if constexpr (std::is_same_v<C, double>) {
    return load<P>(from);
  } else if constexpr (std::is_same_v<P, double>) {
    return double(*from);
#if defined(EIGEN_VECTORIZE_AVX512)
  } else if constexpr (lanes<P> == 8) {
    return P{_mm512_cvtps_pd(_mm256_loadu_ps(from))};
#elif defined(EIGEN_VECTORIZE_AVX)
  } else if constexpr (lanes<P> == 4) {
    return P{_mm256_cvtps_pd(_mm_loadu_ps(from))};
#elif defined(EIGEN_VECTORIZE_SSE2)
  } else if constexpr (lanes<P> == 2) {
    return P{_mm_set_pd(double(from[1]), double(from[0]))};
#endif
  } else {
    return load_widened<P>(from);
  }
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

}  // namespace moe_mamba::cpu
