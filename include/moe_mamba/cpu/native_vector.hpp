#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/cpu/instruction_set.hpp"

#if !defined(MOE_MAMBA_DONT_VECTORIZE) && defined(__SSE2__)
#include <immintrin.h>
#elif !defined(MOE_MAMBA_DONT_VECTORIZE) && defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif

// g++ defines a macro for each part of -ffast-math, clang for -ffinite-math-only alone.
#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) || \
    defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || defined(__NO_SIGNED_ZEROS__)
#error \
    "moe_mamba: -ffast-math and -Ofast let the compiler assume that there is no NaN and reorder sums, which changes results and hides NaNs, and so do parts such as -funsafe-math-optimizations; allowed: -O3, with -fno-fast-math for the files that include moe_mamba"
#endif

/// The foundation of packets: the compiler's own vector types (GCC's `vector_size` attribute, which clang has as well),
/// and intrinsics for the few instructions that have no operator.
///
/// Sums, products, comparisons and shuffles of vector types compile to one instruction each on every instruction set.
/// Intrinsics are used for what has no operator (fused multiply-add, square root, masked access), for larger() and
/// smaller(), which g++ 12 does not recognise in a comparison with a constant, and for the two conversions that it
/// splits in halves. An instruction set without a branch below uses plain loops.
namespace moe_mamba::inline v0_2::cpu {

/// Bytes of the widest vector that the compiler's flags allow; 0 for none. MOE_MAMBA_DONT_VECTORIZE makes it 0.
#if defined(MOE_MAMBA_DONT_VECTORIZE)
inline constexpr Index vector_bytes = 0;
#elif defined(__AVX512F__)
inline constexpr Index vector_bytes = 64;
#elif defined(__AVX__)
inline constexpr Index vector_bytes = 32;
#elif defined(__SSE2__) || (defined(__ARM_NEON) && defined(__aarch64__)) || defined(__VSX__)
inline constexpr Index vector_bytes = 16;
#else
inline constexpr Index vector_bytes = 0;
#endif

/// The number of vector registers of that instruction set.
#if defined(__AVX512F__) || defined(__aarch64__) || defined(__VSX__)
inline constexpr int vector_registers = 32;
#elif defined(__x86_64__)
inline constexpr int vector_registers = 16;
#else
inline constexpr int vector_registers = 8;
#endif

/// Elements of type C in the widest vector.
template <ComputeScalar C>
inline constexpr Index native_lanes = vector_bytes == 0 ? Index{1} : vector_bytes / Index{sizeof(C)};

namespace detail {

template <class T, Index Lanes>
struct VectorOf {
  using type [[gnu::vector_size(sizeof(T) * Lanes)]] = T;
  using unaligned [[gnu::vector_size(sizeof(T) * Lanes), gnu::aligned(alignof(T))]] = T;
};
template <class T>
struct VectorOf<T, 1> {
  using type = T;
  using unaligned = T;
};

/// A vector of `Lanes` elements of an arithmetic type T; T itself for one lane.
template <class T, Index Lanes>
using Vector = typename VectorOf<T, Lanes>::type;

/// Reinterprets the bits of a vector as another type. (std::bit_cast takes a reference, through which g++ 12 sees an
/// object in memory with two types and does not keep it in a register.)
template <class To, class From>
[[gnu::always_inline]] inline To reinterpret(From from) {
  return __builtin_bit_cast(To, from);
}

/// The widest vectors of the compute types.
using Floats = Vector<float, native_lanes<float>>;
using Doubles = Vector<double, native_lanes<double>>;

/// a b, never contracted with a sum: g++ contracts across functions, once they are inlined, but not through this
/// builtin; clang contracts within an expression only.
template <class V>
[[gnu::always_inline]] inline V product(V a, V b) {
#if defined(__clang__) || defined(__CUDACC__)  // nvcc's front end knows no such builtin
  return a * b;
#else
  return __builtin_assoc_barrier(a * b);
#endif
}

template <ComputeScalar C>
[[gnu::always_inline]] inline C multiply_add(C a, C b, C c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return std::fma(a, b, c);
#else
  return a * b + c;
#endif
}

template <ComputeScalar C>
[[gnu::always_inline]] inline C square_root(C a) {
  return std::sqrt(a);
}

/// The result of comparing two vectors: integers as wide as the elements, with all bits set in the lanes where the
/// comparison is true; bool for scalars.
template <class V>
using Comparison = decltype(V{} < V{});

/// mask ? yes : no, lane by lane.
template <class V>
[[gnu::always_inline]] inline V blend(Comparison<V> mask, V yes, V no) {
#if defined(__CUDACC__)  // whose front end has no ?: for vectors
  if constexpr (!std::is_arithmetic_v<V>) {
    using Bits = Comparison<V>;
    return reinterpret<V>((reinterpret<Bits>(yes) & mask) | (reinterpret<Bits>(no) & ~mask));
  } else {
    return mask ? yes : no;
  }
#else
  return mask ? yes : no;
#endif
}

/// a < b ? b : a and b < a ? b : a.
template <class V>
[[gnu::always_inline]] inline V larger(V a, V b) {
  return blend(a < b, b, a);
}
template <class V>
[[gnu::always_inline]] inline V smaller(V a, V b) {
  return blend(b < a, b, a);
}

/// `rest` with its first `count` elements replaced by those at `from`; nothing after them is read.
template <class C, class V>
[[gnu::always_inline]] inline V load_first(const C* from, Index count, V rest) {
  alignas(64) C buffer[sizeof(V) / sizeof(C)];
  std::memcpy(buffer, &rest, sizeof rest);
  for (Index i = 0; i < count; ++i) buffer[i] = from[i];
  std::memcpy(&rest, buffer, sizeof rest);
  return rest;
}
/// Writes the first `count` elements of `value`.
template <class C, class V>
[[gnu::always_inline]] inline void store_first(C* to, Index count, V value) {
  alignas(64) C buffer[sizeof(V) / sizeof(C)];
  std::memcpy(buffer, &value, sizeof value);
  for (Index i = 0; i < count; ++i) to[i] = buffer[i];
}

/// Converts the elements at `from`, of any alignment.
template <class To, class From>
[[gnu::always_inline]] inline To load_converted(const From* from) {
  Vector<From, static_cast<Index>(sizeof(To) / sizeof(To{}[0]))> values;
  std::memcpy(&values, from, sizeof values);
  return __builtin_convertvector(values, To);
}

#if defined(MOE_MAMBA_DONT_VECTORIZE)

#elif defined(__AVX512F__)

#if !defined(__clang__)  // g++ 12 warns of the deliberately undefined operands inside these intrinsics
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

[[gnu::always_inline]] inline Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
[[gnu::always_inline]] inline Doubles multiply_add(Doubles a, Doubles b, Doubles c) { return _mm512_fmadd_pd(a, b, c); }
[[gnu::always_inline]] inline Floats square_root(Floats a) { return _mm512_sqrt_ps(a); }
[[gnu::always_inline]] inline Doubles square_root(Doubles a) { return _mm512_sqrt_pd(a); }
#if !defined(__clang__)  // g++ 12 splits the builtin if -mtune prefers narrower vectors
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"  // from the macro that replaces the intrinsic in unoptimised builds
[[gnu::always_inline]] inline Floats product(Floats a, Floats b) {
  return _mm512_mul_round_ps(a, b, _MM_FROUND_CUR_DIRECTION);
}
[[gnu::always_inline]] inline Doubles product(Doubles a, Doubles b) {
  return _mm512_mul_round_pd(a, b, _MM_FROUND_CUR_DIRECTION);
}
#pragma GCC diagnostic pop
#endif
// The instructions return their second operand if neither is larger or one is NaN.
[[gnu::always_inline]] inline Floats larger(Floats a, Floats b) { return _mm512_max_ps(b, a); }
[[gnu::always_inline]] inline Doubles larger(Doubles a, Doubles b) { return _mm512_max_pd(b, a); }
[[gnu::always_inline]] inline Floats smaller(Floats a, Floats b) { return _mm512_min_ps(b, a); }
[[gnu::always_inline]] inline Doubles smaller(Doubles a, Doubles b) { return _mm512_min_pd(b, a); }

[[gnu::always_inline]] inline Floats load_first(const float* from, Index count, Floats rest) {
  return _mm512_mask_loadu_ps(rest, static_cast<__mmask16>((1u << count) - 1), from);
}
[[gnu::always_inline]] inline Doubles load_first(const double* from, Index count, Doubles rest) {
  return _mm512_mask_loadu_pd(rest, static_cast<__mmask8>((1u << count) - 1), from);
}
[[gnu::always_inline]] inline void store_first(float* to, Index count, Floats value) {
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1), value);
}
[[gnu::always_inline]] inline void store_first(double* to, Index count, Doubles value) {
  _mm512_mask_storeu_pd(to, static_cast<__mmask8>((1u << count) - 1), value);
}

template <>
[[gnu::always_inline]] inline Doubles load_converted(const float* from) {
  return _mm512_cvtps_pd(_mm256_loadu_ps(from));
}
template <>
[[gnu::always_inline]] inline Vector<std::uint32_t, 16> load_converted(const std::uint16_t* from) {
  return Vector<std::uint32_t, 16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
}

#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#elif defined(__SSE2__)

#if defined(__FMA__)  // which comes with AVX
[[gnu::always_inline]] inline Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
[[gnu::always_inline]] inline Doubles multiply_add(Doubles a, Doubles b, Doubles c) { return _mm256_fmadd_pd(a, b, c); }
#else
[[gnu::always_inline]] inline Floats multiply_add(Floats a, Floats b, Floats c) { return a * b + c; }
[[gnu::always_inline]] inline Doubles multiply_add(Doubles a, Doubles b, Doubles c) { return a * b + c; }
#endif
#if defined(__AVX2__)
template <>
[[gnu::always_inline]] inline Vector<std::uint32_t, 8> load_converted(const std::uint16_t* from) {
  return Vector<std::uint32_t, 8>(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}
#endif
#if defined(__AVX__)
[[gnu::always_inline]] inline Floats square_root(Floats a) { return _mm256_sqrt_ps(a); }
[[gnu::always_inline]] inline Doubles square_root(Doubles a) { return _mm256_sqrt_pd(a); }
[[gnu::always_inline]] inline Floats larger(Floats a, Floats b) { return _mm256_max_ps(b, a); }
[[gnu::always_inline]] inline Doubles larger(Doubles a, Doubles b) { return _mm256_max_pd(b, a); }
[[gnu::always_inline]] inline Floats smaller(Floats a, Floats b) { return _mm256_min_ps(b, a); }
[[gnu::always_inline]] inline Doubles smaller(Doubles a, Doubles b) { return _mm256_min_pd(b, a); }
template <>
[[gnu::always_inline]] inline Doubles load_converted(const float* from) {
  return _mm256_cvtps_pd(_mm_loadu_ps(from));
}
#else
[[gnu::always_inline]] inline Floats square_root(Floats a) { return _mm_sqrt_ps(a); }
[[gnu::always_inline]] inline Doubles square_root(Doubles a) { return _mm_sqrt_pd(a); }
[[gnu::always_inline]] inline Floats larger(Floats a, Floats b) { return _mm_max_ps(b, a); }
[[gnu::always_inline]] inline Doubles larger(Doubles a, Doubles b) { return _mm_max_pd(b, a); }
[[gnu::always_inline]] inline Floats smaller(Floats a, Floats b) { return _mm_min_ps(b, a); }
[[gnu::always_inline]] inline Doubles smaller(Doubles a, Doubles b) { return _mm_min_pd(b, a); }
#endif

#elif defined(__ARM_NEON) && defined(__aarch64__)

[[gnu::always_inline]] inline Floats multiply_add(Floats a, Floats b, Floats c) { return vfmaq_f32(c, a, b); }
[[gnu::always_inline]] inline Doubles multiply_add(Doubles a, Doubles b, Doubles c) { return vfmaq_f64(c, a, b); }
[[gnu::always_inline]] inline Floats square_root(Floats a) { return vsqrtq_f32(a); }
[[gnu::always_inline]] inline Doubles square_root(Doubles a) { return vsqrtq_f64(a); }

#else

template <class V>
[[gnu::always_inline]] inline V multiply_add(V a, V b, V c) {
  for (std::size_t i = 0; i < sizeof(V) / sizeof(a[0]); ++i) a[i] = multiply_add(a[i], b[i], c[i]);
  return a;
}
template <class V>
[[gnu::always_inline]] inline V square_root(V a) {
  for (std::size_t i = 0; i < sizeof(V) / sizeof(a[0]); ++i) a[i] = square_root(a[i]);
  return a;
}

#endif

}  // namespace detail

}  // namespace moe_mamba::inline v0_2::cpu
