#pragma once

#include "moe_mamba/core/standard.hpp"

/// Copies from device to shared memory that threads do not wait for.
namespace moe_mamba::inline v0_2::cuda::detail {

/// Writes 16 bytes of shared memory without waiting: the first `bytes` are copied, the others zero. `from` is aligned
/// to 16 bytes and memory, also where nothing is read.
__device__ inline void copy_async(unsigned to, const void* from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
__device__ inline void end_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most `pending` of the last groups of copies are not done.
template <int pending>
__device__ inline void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
