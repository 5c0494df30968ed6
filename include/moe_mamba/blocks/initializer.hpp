#pragma once

#include <algorithm>
#include <cmath>

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/random.hpp"
#include "moe_mamba/core/scalar.hpp"

namespace moe_mamba::inline v0_2 {

/// How the elements of a parameter are initialised: by one of the named distributions, or by a user's function.
struct Initializer {
  /// The value of an element in column `column` of its row, which may be drawn from `random`; null: zeros.
  double (*draw)(const Initializer& self, Random& random, Index column) = nullptr;
  double scale = 1;
  Index fan_in = 1;
  bool per_branch = false;  ///< divided by the square root of the model's number of residual branches

  static constexpr Initializer zeros() { return {}; }
  static constexpr Initializer ones() { return {draw_one}; }

  /// Uniform in ± fan_in^(-1/2).
  static constexpr Initializer uniform(Index fan_in) { return {draw_uniform, 1, fan_in}; }

  /// Normal with this standard deviation.
  static constexpr Initializer normal(double deviation) { return {draw_normal, deviation}; }

  /// Truncated normal with standard deviation sqrt(scale / fan_in), redrawn beyond two deviations.
  static constexpr Initializer truncated_normal(double scale, Index fan_in) {
    return {draw_truncated_normal, scale, fan_in};
  }

  /// Normal with standard deviation sqrt(scale / fan_in), redrawn beyond ± 2 · scale (not: two deviations).
  static constexpr Initializer bounded_normal(double scale, Index fan_in) {
    return {draw_bounded_normal, scale, fan_in};
  }

  /// log(1 … N) in each row, which makes the decay rates 1 … N (S4D-real; Gu & Dao 2023, section 3.6).
  static constexpr Initializer s4d_real() { return {draw_s4d_real}; }

  /// Inverse softplus of a log-uniform draw from [0.001, 0.1], at least 1e-4: the bias of a step size Δ.
  static constexpr Initializer dt_bias() { return {draw_dt_bias}; }

  /// The same, divided by the square root of the model's number of residual branches.
  constexpr Initializer scaled_per_branch() const {
    Initializer scaled = *this;
    scaled.per_branch = true;
    return scaled;
  }

 private:
  static double draw_one(const Initializer&, Random&, Index) { return 1; }
  static double draw_uniform(const Initializer& self, Random& random, Index) {
    return random.uniform(-1, 1) * self.scale / std::sqrt(static_cast<double>(self.fan_in));
  }
  static double draw_normal(const Initializer& self, Random& random, Index) { return random.normal() * self.scale; }
  static double draw_truncated_normal(const Initializer& self, Random& random, Index) {
    return random.truncated_normal(2) * std::sqrt(self.scale / static_cast<double>(self.fan_in));
  }
  static double draw_bounded_normal(const Initializer& self, Random& random, Index) {
    const double deviation = std::sqrt(self.scale / static_cast<double>(self.fan_in));
    return random.truncated_normal(2 * self.scale / deviation) * deviation;
  }
  static double draw_s4d_real(const Initializer&, Random&, Index column) {
    return std::log(static_cast<double>(column + 1));
  }
  static double draw_dt_bias(const Initializer&, Random& random, Index) {
    const double step = std::exp(random.uniform(std::log(0.001), std::log(0.1)));
    return inverse_softplus(std::max(step, 1e-4));
  }
};

}  // namespace moe_mamba::inline v0_2
