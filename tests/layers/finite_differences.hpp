#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include "support/catch.hpp"
#include "support/data.hpp"

namespace test {

/// Checks `gradient - at_start` against finite differences of `objective` with respect to every `stride`-th element of
/// `values`: the difference must be below 1e-7 of the largest element.
///
/// `objective(decisions)` evaluates the function and a digest of its discrete decisions; an element for which these
/// change within the step is at a kink and is skipped, at most one in ten. `at_start` is the value of the gradient
/// before the backward pass added to it.
template <class Objective>
void check_gradient(std::span<double> values, const double* gradient, double at_start, Index stride,
                    const Objective& objective) {
  std::uint64_t here = 0, decisions = 0;
  (void)objective(here);
  double scale = 1e-3;  // for a vanishing gradient
  for (std::size_t i = 0; i < values.size(); ++i) scale = std::max(scale, std::abs(gradient[i] - at_start));
  std::size_t smooth = 0, tried = 0;
  for (std::size_t i = 0; i < values.size(); i += static_cast<std::size_t>(stride)) {
    bool is_smooth = true;
    // The truncation error is of the order of h⁴ = 2e-14, the rounding error of 1e-15 / h = 3e-12.
    const double expected = finite_difference(values[i], 4e-4, [&] {
      const double value = objective(decisions);
      is_smooth = is_smooth && decisions == here;
      return value;
    });
    ++tried;
    if (!is_smooth) continue;
    ++smooth;
    INFO("element " << i << ": " << gradient[i] - at_start << ", by finite differences " << expected);
    CHECK(std::abs(gradient[i] - at_start - expected) <= 1e-7 * scale);
  }
  CHECK(10 * smooth >= 9 * tried);
}

}  // namespace test
