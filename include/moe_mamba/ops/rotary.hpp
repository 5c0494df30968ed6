#pragma once

#include <cmath>

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/position.hpp"

/// Rotary positions (Su et al. 2021, arXiv 2104.09864, section 3.2), in the form of Llama's checkpoints, in which the
/// halves of a head are the real and imaginary parts of complex numbers. At position p, for each head and i of R / 2:
///
///   angle = p · base^(-2i / R)
///   x[i], x[i + R/2] = x[i] cos(angle) - x[i + R/2] sin(angle),  x[i + R/2] cos(angle) + x[i] sin(angle)
///
///   rotary_embedding(device, RotaryEmbedding<C>{…})        in place; components of a head from R on are unchanged
///
/// The backward pass of a rotation is the inverse rotation. Angles are computed in double and their sines and cosines
/// rounded to C, so that large positions are as accurate as small ones.
namespace moe_mamba::inline v0_2 {

template <class C>
struct RotaryEmbedding {
  Shape shape;                              // B sequences of L steps, or packed ones; T rows
  MatrixView<C> x;                          // (T, heads · head_width)
  Index head_width;                         // columns of a head
  Index rotary_width;                       // R of them are rotated: even, at most head_width
  double base;                              // of the frequencies
  StateView<const compute_t<C>> positions;  // (2) per sequence, of its first step, see ops/position.hpp; null for 0
  bool backward;                            // the inverse rotation

  constexpr RotaryEmbedding slice(const SequenceRun& run) const {
    RotaryEmbedding part = *this;
    part.shape = run.shape;
    part.x = run.rows(x);
    part.positions = positions.from(run.sequence);
    return part;
  }
};

/// The angle by which pair i is rotated from one position to the next.
inline double rotary_frequency(double base, Index i, Index rotary_width) {
  return std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(rotary_width));
}

}  // namespace moe_mamba::inline v0_2
