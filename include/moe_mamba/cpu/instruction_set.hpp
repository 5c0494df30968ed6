#pragma once

#include "moe_mamba/core/standard.hpp"

/// One program, one instruction set: objects whose kernels are compiled for different ones do not link with each other.
///
/// A kernel is an inline function, of which a linker keeps one copy, whichever object it came from. Between an object
/// compiled with -march=native and one without, that copy would be chosen by their order on the linker's command line,
/// and with it the results and the machines on which the program runs. The function below is in a section of its own,
/// which is named after the instruction set and kept once. The symbol in it is not: a second such section defines it a
/// second time, and the linker's report names both.
#if defined(__ELF__)

#if defined(MOE_MAMBA_DONT_VECTORIZE)
#define MOE_MAMBA_VECTORS "no_vectors"
#elif defined(__AVX512DQ__)
#define MOE_MAMBA_VECTORS "avx512dq"
#elif defined(__AVX512F__)
#define MOE_MAMBA_VECTORS "avx512"
#elif defined(__AVX2__)
#define MOE_MAMBA_VECTORS "avx2"
#elif defined(__AVX__)
#define MOE_MAMBA_VECTORS "avx"
#elif defined(__SSE4_2__)
#define MOE_MAMBA_VECTORS "sse4_2"
#elif defined(__SSE4_1__)
#define MOE_MAMBA_VECTORS "sse4_1"
#elif defined(__SSSE3__)
#define MOE_MAMBA_VECTORS "ssse3"
#elif defined(__SSE3__)
#define MOE_MAMBA_VECTORS "sse3"
#elif defined(__SSE2__)
#define MOE_MAMBA_VECTORS "sse2"
#elif defined(__ARM_FEATURE_SVE)
#define MOE_MAMBA_VECTORS "sve"
#elif defined(__ARM_NEON)
#define MOE_MAMBA_VECTORS "neon"
#elif defined(__VSX__)
#define MOE_MAMBA_VECTORS "vsx"
#else
#define MOE_MAMBA_VECTORS "other_vectors"
#endif

// Independent of the vector width: with FMA compilers contract a * b + c in scalar code too.
#if defined(__FMA__)
#define MOE_MAMBA_ROUNDING "_fma"
#else
#define MOE_MAMBA_ROUNDING ""
#endif

namespace moe_mamba::inline v0_2::cpu::detail {

[[gnu::used]] inline void compiled_for() asm("moe_mamba_kernels_for_" MOE_MAMBA_VECTORS MOE_MAMBA_ROUNDING);
inline void compiled_for() {
  asm(".globl moe_mamba_needs_one_instruction_set_in_all_objects\n"
      ".hidden moe_mamba_needs_one_instruction_set_in_all_objects\n"
      "moe_mamba_needs_one_instruction_set_in_all_objects:");
}

}  // namespace moe_mamba::inline v0_2::cpu::detail

#undef MOE_MAMBA_VECTORS
#undef MOE_MAMBA_ROUNDING

#endif
