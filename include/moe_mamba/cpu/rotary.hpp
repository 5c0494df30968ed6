#pragma once

#include <algorithm>
#include <cmath>

#include "moe_mamba/cpu/chunks.hpp"
#include "moe_mamba/ops/rotary.hpp"

/// Rotary positions on the CPU; the contract is in ops/rotary.hpp. Cosines and sines of a row's angles are computed
/// once for all heads.
namespace moe_mamba::inline v0_2::cpu {

namespace detail {

/// Pairs whose cosines and sines are held at a time; wider heads take several passes.
inline constexpr Index rotary_pairs = 128;

/// Rotates pairs first … first + count - 1 of every head of a row by the angles whose cosines and sines are given.
template <class C>
void rotate_row(const RotaryEmbedding<C>& rotary, Index row, Index first, Index count, const C* cosines,
                const C* sines) {
  const Index half = rotary.rotary_width / 2;
  for (Index head = 0; head < rotary.x.columns; head += rotary.head_width) {
    C* const real = rotary.x.row(row) + head + first;
    C* const imaginary = real + half;
    sweep<C>(count, [=]<class P>(Index i) {
      const P a = load<P>(real + i), b = load<P>(imaginary + i);
      const P cosine = load<P>(cosines + i), sine = load<P>(sines + i);
      store(real + i, fma(a, cosine, -(b * sine)));
      store(imaginary + i, fma(a, sine, b * cosine));
    });
  }
}

}  // namespace detail

/// See ops/rotary.hpp. Nothing is allocated.
template <ComputeScalar C>
void rotary_embedding(Device& device, const RotaryEmbedding<C>& rotary) {
  if (each_packed_run(rotary, [&](const auto& part) { rotary_embedding(device, part); })) return;
  const Index half = rotary.rotary_width / 2, length = rotary.shape.length;
  for (Index first = 0; first < half; first += detail::rotary_pairs) {
    const Index count = std::min(detail::rotary_pairs, half - first);
    double frequencies[detail::rotary_pairs];
    for (Index i = 0; i < count; ++i) {
      frequencies[i] = rotary_frequency(rotary.base, first + i, rotary.rotary_width);
    }
    // A sine takes about as long as the rotation of a dozen pairs.
    detail::for_rows(device, rotary.shape.tokens(), rotary.x.columns + 24 * count, [&](Index begin, Index end) {
      C cosines[detail::rotary_pairs], sines[detail::rotary_pairs];
      for (Index row = begin; row < end; ++row) {
        const double position = static_cast<double>(position_of(rotary.positions, row / length) + row % length);
        for (Index i = 0; i < count; ++i) {
          const double angle = position * frequencies[i];
          cosines[i] = static_cast<C>(std::cos(angle));
          sines[i] = static_cast<C>(rotary.backward ? -std::sin(angle) : std::sin(angle));
        }
        detail::rotate_row(rotary, row, first, count, cosines, sines);
      }
    });
  }
}

}  // namespace moe_mamba::inline v0_2::cpu
