#include "ceilings.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>

namespace benchmarks {

namespace {

using moe_mamba::cpu::Device;

// Enough independent chains to hide the latency of an FMA on all common cores, few enough for 16 registers.
constexpr int chains = 12;
constexpr Index steps = Index{1} << 16;
constexpr Index tasks_per_thread = 4;

using Floats [[gnu::vector_size(vector_bytes)]] = float;
using Words [[gnu::vector_size(vector_bytes)]] = std::uint64_t;

/// A sink for results, so that the work is not optimised away.
std::atomic<std::uint64_t> drain{0};

[[gnu::noinline]] float run_chains(float factor, float summand) {
  Floats sum[chains], a, b;
  for (std::size_t i = 0; i < vector_bytes / sizeof(float); ++i) {
    a[i] = factor;
    b[i] = summand;
  }
  for (Floats& chain : sum) chain = b;
  for (Index step = 0; step < steps; ++step) {
    for (Floats& chain : sum) chain = chain * a + b;
  }
  for (int i = 1; i < chains; ++i) sum[0] += sum[i];
  return sum[0][0];
}

[[gnu::noinline]] std::uint64_t read(const std::byte* from, std::size_t bytes) {
  constexpr std::size_t streams = 8, block = streams * vector_bytes;
  Words sum[streams] = {};
  for (std::size_t at = 0; at + block <= bytes; at += block) {
    for (std::size_t i = 0; i < streams; ++i) {
      Words words;
      std::memcpy(&words, from + at + i * vector_bytes, vector_bytes);
      sum[i] += words;
    }
  }
  for (std::size_t i = 1; i < streams; ++i) sum[0] += sum[i];
  return sum[0][0];
}

}  // namespace

double multiply_add_operations(const Device& device) {
  return 2.0 * chains * static_cast<double>(steps) * (vector_bytes / sizeof(float)) *
         static_cast<double>(tasks_per_thread * device.threads());
}

void multiply_add(Device& device) {
  device.parallel(tasks_per_thread * device.threads(), [](Index task, int) {
    drain += static_cast<std::uint64_t>(run_chains(0.5f, 1.0f + static_cast<float>(task)));
  });
}

void plain_read(Device& device, std::span<const std::byte> memory) {
  constexpr std::size_t smallest = std::size_t{64} << 10, largest = std::size_t{4} << 20;
  const auto threads = static_cast<std::size_t>(device.threads());
  const std::size_t share = memory.size() / (4 * threads);
  const std::size_t block = std::clamp((share + smallest - 1) / smallest * smallest, smallest, largest);
  device.parallel(static_cast<Index>((memory.size() + block - 1) / block), [&](Index task, int) {
    const std::size_t first = static_cast<std::size_t>(task) * block;
    drain += read(memory.data() + first, std::min(block, memory.size() - first));
  });
}

}  // namespace benchmarks
