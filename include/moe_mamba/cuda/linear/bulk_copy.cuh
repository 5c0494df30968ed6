#pragma once

#include <cstdint>
#include <cuda.h>

#include "moe_mamba/core/standard.hpp"

/// The tensor memory accelerator: asynchronous copies of boxes of matrices into shared memory, and the barriers that
/// signal their end; compute capability 9.0.
namespace moe_mamba::inline v0_2::cuda::detail {

/// In shared memory, 8 bytes. A phase ends when as many have arrived as it was made for and all bytes that it was told
/// to expect have come; then the next one begins.
struct BulkBarrier {
  unsigned address;

  __device__ void begin(unsigned arrivals) const {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address), "r"(arrivals) : "memory");
  }
  __device__ void arrive() const { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(address) : "memory"); }
  __device__ void arrive_and_expect(unsigned bytes) const {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address), "r"(bytes) : "memory");
  }
  /// Waits for the end of the phase of this parity, 0 for the first one. Nothing to wait for is the phase before the
  /// first, of parity 1.
  __device__ void wait(unsigned parity) const {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@!done bra again;\n"
        "}\n" ::"r"(address),
        "r"(parity)
        : "memory");
  }
};

/// Makes barriers that this thread began visible to copies.
__device__ inline void publish_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

/// The box at these places, that of the contiguous dimension first; zeros where it lies outside of the matrix.
__device__ inline void copy_box(unsigned to, const CUtensorMap& map, int column, int line, BulkBarrier barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::
          "r"(to),
      "l"(&map), "r"(column), "r"(line), "r"(barrier.address)
      : "memory");
}
__device__ inline void copy_box(unsigned to, const CUtensorMap& map, int column, int line, int matrix,
                                BulkBarrier barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3, %4}], [%5];" ::"r"(to),
      "l"(&map), "r"(column), "r"(line), "r"(matrix), "r"(barrier.address)
      : "memory");
}

/// Asynchronous stores from shared to device memory, each of a multiple of 16 bytes and aligned to 16 bytes.
__device__ inline void bulk_store(void* to, unsigned from, unsigned bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(from), "r"(bytes)
               : "memory");
}
__device__ inline void commit_bulk_stores() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
/// Waits until the shared memory of all of this thread's stores has been read.
__device__ inline void await_bulk_reads() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }
/// Waits until all of this thread's stores are done.
__device__ inline void await_bulk_stores() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

}  // namespace moe_mamba::inline v0_2::cuda::detail
