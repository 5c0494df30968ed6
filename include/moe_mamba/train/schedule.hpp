#pragma once

#include <cmath>
#include <concepts>
#include <numbers>
#include <stdexcept>
#include <string>

#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/scalar.hpp"

/// Learning-rate schedules: functions of the step, counted from 0, that return the factor of the peak learning rate.
namespace moe_mamba::inline v0_2 {

/// A schedule for a trainer: schedule(step) is in [0, 1] for every step >= 0, and schedule.check() throws
/// std::invalid_argument naming the option that is out of range. An update for which schedule(step) is anything else, or
/// throws, is refused before it begins.
template <class T>
concept Schedule = requires(const T& schedule, Index step) {
  { schedule(step) } -> std::convertible_to<double>;
  schedule.check();
};

namespace detail {

/// Linear from 1 / warmup in step 0 to 1 in step warmup - 1.
constexpr double warmup_factor(Index step, Index warmup) {
  return static_cast<double>(step + 1) / static_cast<double>(warmup);
}

/// The factor of a step. Throws std::invalid_argument if it is outside [0, 1] or NaN.
template <Schedule Rate>
double checked_factor(const Rate& schedule, Index step) {
  const double factor = schedule(step);
  if (in_range(factor, 0, 1)) return factor;
  const std::string name = "the schedule's factor of step " + std::to_string(step);
  raise<std::invalid_argument>(error_text(name.c_str(), factor, "0 to 1"));
}

}  // namespace detail

/// The peak rate throughout, after a linear warm-up.
struct Constant {
  Index warmup = 0;  // steps, >= 0

  void check() const { require(warmup >= 0, "warmup", warmup, "an integer >= 0"); }

  constexpr double operator()(Index step) const noexcept {
    return step < warmup ? detail::warmup_factor(step, warmup) : 1.0;
  }
};

/// Linear warm-up to the peak, then half a cosine down to `floor` times the peak (Loshchilov & Hutter 2016, without
/// restarts), which is reached at `steps` and kept afterwards.
struct Cosine {
  Index warmup = 0;    // steps, 0 … steps
  Index steps = 0;     // of the whole run, warm-up included; required, >= 1
  double floor = 0.1;  // in [0, 1]

  void check() const {
    require(steps >= 1, "steps", steps, "an integer >= 1, the steps of the whole run, which must be given");
    require(warmup >= 0 && warmup <= steps, "warmup", warmup,
            [&] { return "an integer from 0 to steps, which is " + std::to_string(steps); });
    require(detail::in_range(floor, 0, 1), "floor", floor, "0 <= floor <= 1");
  }

  double operator()(Index step) const noexcept {
    if (step < warmup) return detail::warmup_factor(step, warmup);
    if (step >= steps) return floor;
    const double progress = static_cast<double>(step - warmup) / static_cast<double>(steps - warmup);
    return floor + (1 - floor) * 0.5 * (1 + std::cos(std::numbers::pi * progress));
  }
};

namespace detail {

template <class Rate>
struct OptimizerBefore {
  static_assert(!sizeof(Rate),
                "a Trainer takes the optimizer before the schedule: Trainer trainer(model, AdamW{}, Cosine{...}): "
                "OptimizerBefore<the schedule>");
};

}  // namespace detail

}  // namespace moe_mamba::inline v0_2
