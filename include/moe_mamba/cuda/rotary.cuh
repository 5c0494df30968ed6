#pragma once

#include <algorithm>

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/ops/rotary.hpp"

/// Rotary positions on a CUDA device; the contract is in ops/rotary.hpp. A thread takes a pair of numbers of all heads
/// of a row, so that a sine is formed once for all of them. Frequencies come from the host, which rounds them as the
/// CPU does.
namespace moe_mamba::inline v0_2::cuda {

namespace detail {

inline constexpr int rotary_pairs = 128, rotary_threads = 128;

struct RotaryFrequencies {
  double of[rotary_pairs];
};

/// Pairs first … first + count - 1 of every head.
template <class C>
__global__ void __launch_bounds__(rotary_threads)
    rotary_kernel(const __grid_constant__ RotaryEmbedding<C> rotary,
                  const __grid_constant__ RotaryFrequencies frequencies, int first, int count) {
  const Index index = Index{blockIdx.x} * rotary_threads + threadIdx.x;
  const Index row = index / count, i = index - row * count;
  if (row >= rotary.shape.tokens()) return;
  const Index sequence = row / rotary.shape.length, step = row - sequence * rotary.shape.length;
  const double angle =
      static_cast<double>(position_of(rotary.positions, sequence) + step) * frequencies.of[static_cast<int>(i)];
  double sine, cosine;
  sincos(rotary.backward ? -angle : angle, &sine, &cosine);
  using T = compute_t<C>;
  const T s = static_cast<T>(sine), c = static_cast<T>(cosine);
  C* real = rotary.x.row(row) + first + i;
  const Index half = rotary.rotary_width / 2;
  for (Index head = 0; head < rotary.x.columns; head += rotary.head_width, real += rotary.head_width) {
    const T a = static_cast<T>(real[0]), b = static_cast<T>(real[half]);
    real[0] = static_cast<C>(a * c - b * s);
    real[half] = static_cast<C>(b * c + a * s);
  }
}

}  // namespace detail

/// See ops/rotary.hpp. Nothing is allocated and nothing waits. Throws Error where a kernel cannot be launched.
template <StorageScalar C>
void rotary_embedding(Device& device, const RotaryEmbedding<C>& rotary) {
  if (each_packed_run(rotary, [&](const auto& part) { rotary_embedding(device, part); })) return;
  const int half = static_cast<int>(rotary.rotary_width / 2);
  if (rotary.shape.tokens() == 0) return;
  for (int first = 0; first < half; first += detail::rotary_pairs) {
    const int count = std::min(detail::rotary_pairs, half - first);
    detail::RotaryFrequencies frequencies{};
    for (int i = 0; i < count; ++i) {
      frequencies.of[i] = rotary_frequency(rotary.base, first + i, rotary.rotary_width);
    }
    const Index blocks = ceiling_divide(rotary.shape.tokens() * count, detail::rotary_threads);
    detail::rotary_kernel<C><<<static_cast<unsigned>(blocks), detail::rotary_threads, 0, device.stream()>>>(
        rotary, frequencies, first, count);
  }
  check_launch("rotary_embedding");
}

}  // namespace moe_mamba::inline v0_2::cuda
