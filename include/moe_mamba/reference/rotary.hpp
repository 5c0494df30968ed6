#pragma once

#include <cmath>

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/rotary.hpp"
#include "moe_mamba/reference/device.hpp"

/// The reference of ops/rotary.hpp.
namespace moe_mamba::inline v0_2::reference {

/// See the contract above. Runs in double whatever C is.
template <class C>
void rotary_embedding(const Device& device, const RotaryEmbedding<C>& rotary) {
  if (each_packed_run(rotary, [&](const auto& part) { rotary_embedding(device, part); })) return;
  const Index half = rotary.rotary_width / 2;
  for (Index row = 0; row < rotary.shape.tokens(); ++row) {
    const Index sequence = row / rotary.shape.length, step = row % rotary.shape.length;
    const double position = static_cast<double>(position_of(rotary.positions, sequence) + step);
    for (Index head = 0; head < rotary.x.columns; head += rotary.head_width) {
      for (Index i = 0; i < half; ++i) {
        const double angle = position * rotary_frequency(rotary.base, i, rotary.rotary_width);
        const double cosine = std::cos(angle), sine = rotary.backward ? -std::sin(angle) : std::sin(angle);
        C& real = rotary.x(row, head + i);
        C& imaginary = rotary.x(row, head + i + half);
        const double a = static_cast<double>(real), b = static_cast<double>(imaginary);
        real = static_cast<C>(a * cosine - b * sine);
        imaginary = static_cast<C>(b * cosine + a * sine);
      }
    }
  }
}

}  // namespace moe_mamba::inline v0_2::reference
