#pragma once

#include <algorithm>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cuda/common/put_sequences.cuh"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/ops/rotary.hpp"

/// Rotary positions on a CUDA device; the contract is in ops/rotary.hpp. For pair i of a row at a position:
///
///   angle = position · frequency_i (negated in the backward pass)    (a, b) ← (a cos - b sin, b cos + a sin)
///
/// A thread takes one pair in all heads of a row, so that each sine and cosine is computed once. Frequencies are passed
/// from the host, which rounds them as the CPU backend does.
namespace moe_mamba::inline v0_2::cuda {

namespace detail {

inline constexpr int rotary_pairs = 128, rotary_threads = 128;

struct RotaryFrequencies {
  double of[rotary_pairs];
};

/// Pairs first … first + count - 1 of every head. Threads are numbered over the pairs of all rows or, if sequences are
/// packed, over those of each sequence.
template <class C>
__global__ void __launch_bounds__(rotary_threads)
    rotary_kernel(const __grid_constant__ RotaryEmbedding<C> rotary,
                  const __grid_constant__ RotaryFrequencies frequencies,
                  const __grid_constant__ LaunchSequences<PackedSequence> sequences, int first, int count) {
  SequenceBlock place{0, 0, rotary.shape.tokens(), blockIdx.x};
  if (sequences.packed != nullptr) place = sequences.at<SequenceKind::packed>(blockIdx.x);
  const Index index = Index{place.block} * rotary_threads + threadIdx.x;
  Index step = index / count;
  const Index i = index - step * count, row = place.row + step;
  if (step >= place.length) return;
  Index sequence = place.sequence;
  if (sequences.packed == nullptr) {
    sequence = row / rotary.shape.length;
    step = row - sequence * rotary.shape.length;
  }
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

/// Equally long sequences, or as many packed ones as fit in a table.
template <class C>
void launch_rotary(Device& device, const RotaryEmbedding<C>& rotary) {
  if (rotary.shape.tokens() == 0) return;
  const int half = static_cast<int>(rotary.rotary_width / 2);
  for (int first = 0; first < half; first += rotary_pairs) {
    const int count = std::min(rotary_pairs, half - first);
    RotaryFrequencies frequencies{};
    for (int i = 0; i < count; ++i) {
      frequencies.of[i] = rotary_frequency(rotary.base, first + i, rotary.rotary_width);
    }
    const auto blocks_of = [&](Index rows) { return ceiling_divide<Index>(rows * count, rotary_threads); };
    Index blocks = blocks_of(rotary.shape.tokens());
    LaunchSequences<PackedSequence> sequences;
    if (rotary.shape.lengths != nullptr) {
      const SequenceTable<PackedSequence> table(
          rotary.shape, [&](const PackedSequence& sequence) { return blocks_of(sequence.length); });
      Arena arena(device.scratch());
      sequences = put_sequences(device, table, arena);
      blocks = table.blocks;
    }
    rotary_kernel<C><<<static_cast<unsigned>(blocks), rotary_threads, 0, device.stream()>>>(rotary, frequencies,
                                                                                            sequences, first, count);
  }
}

}  // namespace detail

/// See ops/rotary.hpp. Neither allocates nor synchronises. Packed sequences take two launches per 160 or so of them.
/// Throws Error if a kernel cannot be launched.
template <StorageScalar C>
void rotary_embedding(Device& device, const RotaryEmbedding<C>& rotary) {
  detail::for_sequence_groups(
      rotary.shape, detail::SequenceTable<detail::PackedSequence>::most, [](Index) { return 0; },
      [](int) { return true; }, [&](const SequenceRun& run) { detail::launch_rotary(device, rotary.slice(run)); });
  check_launch("rotary_embedding");
}

}  // namespace moe_mamba::inline v0_2::cuda
