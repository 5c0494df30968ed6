#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "moe_mamba/core/random.hpp"
#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/core/view.hpp"

/// Random inputs, and errors between results.
namespace test {

using moe_mamba::Index;

/// `count` draws, uniform in [low, high), from the stream of `seed`; rounded to T.
template <class T>
std::vector<T> uniform(Index count, std::uint64_t seed, double low = -1, double high = 1) {
  moe_mamba::Random random(moe_mamba::Seed{seed}, 0x7e57);
  std::vector<T> values(static_cast<std::size_t>(count));
  for (auto& value : values) value = T(static_cast<float>(random.uniform(low, high)));
  return values;
}

/// The same values in another scalar type.
template <class To, class From>
std::vector<To> converted(const std::vector<From>& values) {
  std::vector<To> result;
  result.reserve(values.size());
  for (const auto& value : values) result.push_back(To(static_cast<double>(value)));
  return result;
}

/// `count` NaNs, with which output buffers are filled before a call, so that elements left unwritten are found.
template <class T>
std::vector<T> poison(Index count) {
  return std::vector<T>(static_cast<std::size_t>(count), T(std::numeric_limits<float>::quiet_NaN()));
}

/// Largest difference over largest magnitude of the expected values (absolute if those are all zero). NaN if either has
/// a NaN, so every comparison fails.
template <class A, class B>
double relative_error(const std::vector<A>& actual, const std::vector<B>& expected) {
  if (actual.size() != expected.size()) return std::numeric_limits<double>::infinity();
  double difference = 0, magnitude = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double a = static_cast<double>(actual[i]), e = static_cast<double>(expected[i]);
    if (std::isnan(a) || std::isnan(e)) return std::numeric_limits<double>::quiet_NaN();
    difference = std::max(difference, std::abs(a - e));
    magnitude = std::max(magnitude, std::abs(e));
  }
  return magnitude == 0 ? difference : difference / magnitude;
}

/// The derivative of `value()` with respect to `x`, by the fourth-order central difference with step `h`.
template <class Value>
double finite_difference(double& x, double h, const Value& value) {
  const double at = x;
  x = at + h;
  const double a = value();
  x = at - h;
  const double b = value();
  x = at + 2 * h;
  const double c = value();
  x = at - 2 * h;
  const double d = value();
  x = at;
  return (8 * (a - b) - (c - d)) / (12 * h);
}

}  // namespace test
