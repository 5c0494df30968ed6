#pragma once

#include "moe_mamba/core/standard.hpp"

/// Warp-level matrix instructions on bfloat16 fragments in registers (ldmatrix, mma.sync): compute capability 8.0 and
/// up.
namespace moe_mamba::inline v0_2::cuda::detail {

/// Whether an operand is transposed.
enum class Transpose { no, yes };

/// Loads four 8 by 8 matrices from shared memory, transposed or not; each lane gives the address of a row.
template <Transpose transpose>
__device__ inline void load_matrices(unsigned (&to)[4], unsigned line) {
  if constexpr (transpose == Transpose::yes) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(line)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(line)
                 : "memory");
  }
}

/// sums (16 by 8) += a (16 by 16) b (16 by 8)
__device__ inline void multiply_matrices(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
