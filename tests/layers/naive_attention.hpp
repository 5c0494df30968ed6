#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <limits>
#include <string>
#include <vector>

#include "layers/naive.hpp"

namespace naive {

/// Attention of H heads of width d that share G heads of keys and values, over the last `window` positions; `rotary`
/// elements of a head are rotated by its position, none for 0.
struct Attention {
  Index H, G, d, window, rotary;
  double base;
  bool input_biases, output_bias;
};

/// A rotary embedding as a product of complex numbers: element i of the first half is the real part, of the second half
/// the imaginary part.
inline void turn(double* head, Index rotary, double base, double position) {
  for (Index i = 0; i < rotary / 2; ++i) {
    const double angle = position * std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(rotary));
    const std::complex<double> turned = std::complex<double>(head[i], head[rotary / 2 + i]) * std::polar(1.0, angle);
    head[i] = turned.real();
    head[rotary / 2 + i] = turned.imag();
  }
}

inline Matrix attention(const Attention& sizes, Run& run, const std::string& prefix, const Matrix& x) {
  const Index H = sizes.H, G = sizes.G, d = sizes.d, N = sizes.window;
  const auto project = [&](const std::string& name, const Matrix& from, Index out, bool has_bias) {
    Matrix to = product(from, run.weights(prefix + name + "_proj.weight"), out);
    const double* bias = has_bias ? run.weights(prefix + name + "_proj.bias") : nullptr;
    for (Index t = 0; t < to.rows && has_bias; ++t) {
      for (Index i = 0; i < out; ++i) to(t, i) += bias[i];
    }
    return to;
  };
  const Matrix q = project("q", x, H * d, sizes.input_biases), k = project("k", x, G * d, sizes.input_biases);
  const Matrix v = project("v", x, G * d, sizes.input_biases);
  Matrix mixed(run.tokens(), H * d);
  for (Index b = 0; b < run.batch; ++b) {
    // Keys [G, N, d], values [G, N, d] and the position, in two digits; position p is in slot p mod N.
    double* state = run.states[at(b)].data() + run.state_position;
    double* digits = state + 2 * N * G * d;
    const auto digit = [&](Index i) { return std::max<Index>(0, static_cast<Index>(std::lround(digits[i]))); };
    const Index read = digit(0) + digit(1) * 1048576;
    // The last N rows of each head, oldest first, followed by each step's own.
    std::vector<std::vector<Vector>> keys(at(G)), values(at(G));
    for (Index g = 0; g < G; ++g) {
      for (Index p = std::max<Index>(0, read - N); p < read; ++p) {
        const double *key = state + (g * N + p % N) * d, *value = key + G * N * d;
        keys[at(g)].emplace_back(key, key + d);
        values[at(g)].emplace_back(value, value + d);
      }
    }
    for (Index t = 0; t < run.length; ++t) {
      const Index row = b * run.length + t, position = read + t;
      for (Index g = 0; g < G; ++g) {
        Vector key, value;
        for (Index i = 0; i < d; ++i) key.push_back(k(row, g * d + i));
        for (Index i = 0; i < d; ++i) value.push_back(v(row, g * d + i));
        turn(key.data(), sizes.rotary, sizes.base, static_cast<double>(position));
        for (Index i = 0; i < d; ++i) state[(g * N + position % N) * d + i] = key[at(i)];
        for (Index i = 0; i < d; ++i) state[((G + g) * N + position % N) * d + i] = value[at(i)];
        keys[at(g)].push_back(key);
        values[at(g)].push_back(value);
      }
      for (Index h = 0; h < H; ++h) {
        const auto& seen = keys[at(h / (H / G))];
        const auto& summed = values[at(h / (H / G))];
        Vector query;
        for (Index i = 0; i < d; ++i) query.push_back(q(row, h * d + i));
        turn(query.data(), sizes.rotary, sizes.base, static_cast<double>(position));
        double total = 0;
        for (std::size_t j = seen.size() - std::min(seen.size(), at(N)); j < seen.size(); ++j) {
          double score = 0;
          for (Index i = 0; i < d; ++i) score += query[at(i)] * seen[j][at(i)] / std::sqrt(static_cast<double>(d));
          total += std::exp(score);
          for (Index i = 0; i < d; ++i) mixed(row, h * d + i) += std::exp(score) * summed[j][at(i)];
        }
        for (Index i = 0; i < d; ++i) mixed(row, h * d + i) /= total;
      }
    }
    for (Index i = 0; i < 2 && run.length > 0; ++i) {
      digits[i] = static_cast<double>(i == 0 ? (read + run.length) % 1048576 : (read + run.length) / 1048576);
    }
  }
  run.state_position += 2 * N * G * d + 2;
  return project("o", mixed, x.columns, sizes.output_bias);
}

}  // namespace naive
