#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "summary.hpp"
#include "support/chart.hpp"
#include "support/dot_chart.hpp"
#include "support/terminal.hpp"

/// Charts of losses and of speed-ups.
namespace paper {

/// What losses are drawn against.
enum class Against { steps, flops, seconds };

namespace detail {

/// A unit in which values up to `largest` are handy numbers.
struct Unit {
  double size;
  std::string name;
};

inline Unit flop_unit(double largest) {
  for (const auto& [size, name] : {std::pair{1e18, "EFLOP"}, {1e15, "PFLOP"}, {1e12, "TFLOP"}}) {
    if (largest >= size) return {size, name};
  }
  return {1e9, "GFLOP"};
}
inline Unit time_unit(double largest) {
  if (largest >= 3 * 3600) return {3600, "hours"};
  return largest >= 180 ? Unit{60, "minutes"} : Unit{1, "seconds"};
}

/// The speed-up in words: "2.50×", or what stands for one that is not there.
inline std::string times(const std::optional<double>& speed_up) {
  return speed_up ? support::format("%.2f×", *speed_up) : "not reached";
}

}  // namespace detail

/// What a step of training costs.
inline double flops_per_step(const Comparison& comparison, const SystemSummary& system) {
  return system.cost().training_flops_per_token * static_cast<double>(comparison.group().recipe.tokens());
}

/// Held-out loss of the given systems: the median of their seeds, in a band from the least to the largest. With an arrow from
/// where MoE-Mamba comes to plain Mamba's final loss, if it is drawn against steps.
inline support::LineChart loss_chart(const Comparison& comparison, const std::vector<const SystemSummary*>& systems,
                                     Against against, const std::string& title, support::ChartSize size = {}) {
  using Points = support::LineChart::Points;
  struct Line {
    const SystemSummary* system;
    Points lower, median, upper;
  };
  const auto x_of = [&](const SystemSummary& system, const BandPoint& point) {
    if (against == Against::seconds) return point.seconds;
    return static_cast<double>(point.step) * (against == Against::flops ? flops_per_step(comparison, system) : 1);
  };
  double end = 0;
  for (const SystemSummary* system : systems) {
    if (system->has_run()) end = std::max(end, x_of(*system, system->band().back()));
  }
  const detail::Unit unit = against == Against::flops     ? detail::flop_unit(end)
                            : against == Against::seconds ? detail::time_unit(end)
                                                          : detail::Unit{1, ""};
  const double begin = end / 100;
  double low = 1e300, high = 0;
  std::vector<Line> lines;
  for (const SystemSummary* system : systems) {
    if (!system->has_run()) continue;
    Line& line = lines.emplace_back();
    line.system = system;
    for (const BandPoint& point : system->band()) {
      const double x = x_of(*system, point);
      if (x < begin * 0.5) continue;
      low = std::min(low, point.loss.low);
      if (x >= begin * 0.999) high = std::max(high, point.loss.high);
      line.lower.emplace_back(x / unit.size, point.loss.low);
      line.median.emplace_back(x / unit.size, point.loss.median);
      line.upper.emplace_back(x / unit.size, point.loss.high);
    }
  }
  const std::string x_label = against == Against::steps   ? "training steps"
                              : against == Against::flops ? "training compute, " + unit.name
                                                          : "training time, " + unit.name;
  const double margin = 0.04 * (high - low);
  support::LineChart chart(title, {x_label, begin / unit.size, end / unit.size, support::Scale::logarithmic},
                           {"held-out loss, nats per byte", low - margin, high + margin}, size);
  for (auto line = lines.rbegin(); line != lines.rend(); ++line) {
    const support::LineStyle style{.colour = colour_of(line->system->key)};
    if (line->system->seeds.size() > 1) chart.band(line->lower, line->upper, style);
  }
  for (const Line& line : lines) chart.line(line.median, {.colour = colour_of(line.system->key)}, line.system->name());

  const SystemSummary* mixture = comparison.finished("moe-mamba");
  const auto gain = mixture != nullptr ? mixture->speed_up() : std::nullopt;
  if (against == Against::steps && gain && *gain > 1.05 && comparison.plain().has_run()) {
    const double final_step = static_cast<double>(comparison.plain().band().back().step);
    chart.arrow(final_step, final_step / *gain, comparison.plain().loss().median,
                support::format("%.1f× fewer steps", *gain));
  }
  return chart;
}

namespace detail {

/// The values that are there, against `x`.
inline support::LineChart::Points points_of(const std::vector<double>& x,
                                            const std::vector<std::optional<double>>& values) {
  support::LineChart::Points points;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (values[i]) points.emplace_back(x[i], *values[i]);
  }
  return points;
}

/// An axis for speed-ups that shows all points and what is even.
inline support::Axis speed_up_axis(const std::vector<support::LineChart::Points>& lines) {
  double high = 1.5;
  for (const auto& line : lines) {
    for (const auto& [x, y] : line) {
      high = std::max(high, y + 0.1);
    }
  }
  return {"plain Mamba's steps / MoE-Mamba's to the same loss", 0, high};
}

}  // namespace detail

/// For each evaluation of plain Mamba, how many times fewer steps MoE-Mamba needs to the same loss: one line a seed, and the
/// median.
inline std::string speed_up_chart(const Comparison& comparison) {
  const SystemSummary* mixture = comparison.finished("moe-mamba");
  if (mixture == nullptr || mixture->speed_ups().empty()) return "";
  const Course course = course_of(comparison, *mixture);
  const std::vector<double> steps(course.steps.begin(), course.steps.end());
  std::vector<support::LineChart::Points> lines;
  for (const auto& seed : course.seeds) lines.push_back(detail::points_of(steps, seed));
  support::LineChart chart("Speed-up in the course of training", {"training steps of plain Mamba", 0, steps.back()},
                           detail::speed_up_axis(lines));
  chart.mark(1, "as many steps as plain Mamba", false);
  for (const auto& line : lines) {
    if (lines.size() > 1) chart.line(line, {.colour = 1, .thin = true}, &line == &lines.front() ? "each seed" : "");
  }
  chart.line(detail::points_of(steps, course.median), {.colour = 1}, lines.size() > 1 ? "median" : "one seed");
  return chart.svg();
}

/// Steps of each system to plain Mamba's final loss.
inline std::string steps_chart(const Comparison& comparison, const std::vector<const SystemSummary*>& systems) {
  double end = 0;
  for (const SystemSummary* system : systems) {
    for (const SeedResult& seed : system->seeds) end = std::max(end, static_cast<double>(seed.last().step));
  }
  if (!comparison.plain().has_run()) return "";
  support::DotChart chart("Steps to plain Mamba's final loss",
                          {"training steps; one dot a seed, a bar at the median", 0, end});
  const double reference = static_cast<double>(comparison.plain().seeds.front().last().step);
  chart.mark(reference);
  for (const SystemSummary* system : systems) {
    std::vector<double> values;
    for (const auto& value : system->speed_ups()) {
      if (value) values.push_back(reference / *value);
    }
    const auto median = system->speed_up();
    const std::string result = !system->has_run()            ? "not run"
                               : system->speed_ups().empty() ? "no run of plain Mamba to compare with"
                               : median                      ? detail::times(median)
                                                             : "not reached";
    chart.row(system->name(), result, values, median ? reference / *median : 0, colour_of(system->key));
  }
  return chart.svg();
}

/// Speed-ups of several sizes against the training tokens for each active parameter of plain Mamba.
inline std::string sizes_chart(const std::vector<Comparison>& comparisons) {
  std::vector<support::LineChart::Points> lines;
  std::vector<std::string> names;
  double begin = 1e300, end = 0;
  for (const Comparison& comparison : comparisons) {
    const SystemSummary* mixture = comparison.finished("moe-mamba");
    if (mixture == nullptr) continue;
    const Course course = course_of(comparison, *mixture);
    const double each = static_cast<double>(comparison.group().recipe.tokens()) /
                        static_cast<double>(comparison.plain().cost().active_parameters);
    std::vector<double> tokens;
    for (const Index step : course.steps) tokens.push_back(static_cast<double>(step) * each);
    auto points = detail::points_of(tokens, course.median);
    if (points.empty()) continue;
    begin = std::min(begin, points.front().first);
    end = std::max(end, points.back().first);
    lines.push_back(std::move(points));
    names.push_back(comparison.group().title);
  }
  if (lines.size() < 2 || end <= begin) return "";
  support::LineChart chart("Speed-up by size",
                           {"training bytes for each active parameter", begin, end, support::Scale::logarithmic},
                           detail::speed_up_axis(lines));
  chart.mark(1, "as many steps as plain Mamba", false);
  for (std::size_t i = 0; i < lines.size(); ++i) chart.line(lines[i], {.colour = i}, names[i]);
  return chart.svg();
}

}  // namespace paper
