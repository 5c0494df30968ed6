#pragma once

#include <cstddef>
#include <span>

#include "harness.hpp"
#include "moe_mamba/cpu/device.hpp"

/// The machine's ceilings, measured alternately with each benchmark, with the same threads.
namespace benchmarks {

/// Size in bytes of the widest vectors of this build.
#if defined(__AVX512F__)
inline constexpr int vector_bytes = 64;
#elif defined(__AVX__)
inline constexpr int vector_bytes = 32;
#else
inline constexpr int vector_bytes = 16;
#endif

/// Chains of multiply-adds in registers: the peak of float arithmetic. One call is that many operations:
double multiply_add_operations(const moe_mamba::cpu::Device& device);
void multiply_add(moe_mamba::cpu::Device& device);

/// Reads the memory once, sequentially.
void plain_read(moe_mamba::cpu::Device& device, std::span<const std::byte> memory);

/// The fraction of the multiply-add peak reached by `operations` in the time of `samples`; `peak` are samples of
/// multiply_add().
inline Comparison of_peak(const moe_mamba::cpu::Device& device, double operations, const Samples& samples,
                          const Samples& peak, double aim = 0) {
  return {"FMA peak", operations / multiply_add_operations(device) / time_ratio(samples, peak), true, aim};
}

/// The fraction of the speed of a memory read of equally many bytes.
inline Comparison of_read(const Samples& samples, const Samples& read, double aim = 0) {
  return {"memory read", 1 / time_ratio(samples, read), true, aim};
}

}  // namespace benchmarks
