#pragma once

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "curve.hpp"
#include "study.hpp"

/// What finished runs say: over seeds, and in comparison with plain Mamba.
namespace paper {

/// Smallest, middle and largest of some values; of an even number, the middle is halfway between two.
struct Spread {
  double low = 0, median = 0, high = 0;
  double range() const { return high - low; }
};

/// `values` must not be empty.
inline Spread spread(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  const double median = values.size() % 2 == 1 ? values[half] : 0.5 * (values[half - 1] + values[half]);
  return {values.front(), median, values.back()};
}

/// The median of speed-ups where a run that never comes to the loss counts as the slowest; none where that is the median.
inline std::optional<double> median_speed_up(const std::vector<std::optional<double>>& speed_ups) {
  if (speed_ups.empty()) return std::nullopt;
  std::vector<double> values;
  for (const auto& value : speed_ups) values.push_back(value.value_or(0));
  std::sort(values.begin(), values.end());
  if (values[(values.size() - 1) / 2] == 0) return std::nullopt;
  return spread(values).median;
}

/// How many times fewer steps `curve` needs to come to the least loss that `reference` has had by each of its evaluations,
/// the first left out; at the last one, `speed_up`. None where it does not come to it.
inline std::vector<std::optional<double>> speed_up_along(const Curve& curve, const Curve& reference) {
  std::vector<std::optional<double>> result;
  const Point* best = &reference.points.front();
  for (std::size_t i = 1; i < reference.points.size(); ++i) {
    const Point& point = reference.points[i];
    if (point.held_out < best->held_out) best = &point;
    const auto steps = steps_to(curve, best->held_out);
    result.push_back(steps && *steps > 0 ? std::optional(static_cast<double>(best->step) / *steps) : std::nullopt);
  }
  if (!result.empty()) result.back() = speed_up(curve, reference);
  return result;
}

/// An evaluation that all seeds of a system share.
struct BandPoint {
  Index step = 0;
  double seconds = 0;  ///< median of the seeds
  Spread loss;
};

/// A finished run.
struct SeedResult {
  Index seed = 0;
  const Curve* curve = nullptr;
  bool compared = false;           ///< whether plain Mamba has a run with this seed
  std::optional<double> speed_up;  ///< in steps, to the final loss of that run; none: it is not reached

  const Point& last() const { return curve->points.back(); }
};

/// An entry of a group with its finished runs.
struct SystemSummary {
  const Entry* entry = nullptr;
  std::string key;  ///< without what marks the group's size: "moe-mamba" for "moe-mamba-64" beside a plain "mamba-64"
  std::vector<SeedResult> seeds;
  std::optional<double> rate;

  const std::string& name() const { return entry->system.name; }
  const moe_mamba::Cost& cost() const { return entry->system.cost; }
  bool has_run() const { return !seeds.empty(); }

  /// Final held-out losses; requires has_run().
  Spread loss() const {
    std::vector<double> losses;
    for (const SeedResult& seed : seeds) losses.push_back(seed.last().held_out);
    return spread(losses);
  }
  Spread seconds() const {
    std::vector<double> seconds;
    for (const SeedResult& seed : seeds) seconds.push_back(seed.last().seconds);
    return spread(seconds);
  }
  /// None before it is measured.
  std::optional<Spread> accuracy() const {
    std::vector<double> values;
    for (const SeedResult& seed : seeds) {
      if (seed.last().accuracy >= 0) values.push_back(seed.last().accuracy);
    }
    return values.empty() ? std::nullopt : std::optional(spread(values));
  }
  /// Of the seeds that can be compared.
  std::vector<std::optional<double>> speed_ups() const {
    std::vector<std::optional<double>> values;
    for (const SeedResult& seed : seeds) {
      if (seed.compared) values.push_back(seed.speed_up);
    }
    return values;
  }
  std::optional<double> speed_up() const { return median_speed_up(speed_ups()); }

  /// The evaluations that all seeds have.
  std::vector<BandPoint> band() const {
    std::vector<BandPoint> points;
    for (std::size_t i = 0; has_run(); ++i) {
      std::vector<double> losses, times;
      for (const SeedResult& seed : seeds) {
        if (i >= seed.curve->points.size()) return points;
        losses.push_back(seed.curve->points[i].held_out);
        times.push_back(seed.curve->points[i].seconds);
      }
      points.push_back({seeds.front().curve->points[i].step, spread(times).median, spread(losses)});
    }
    return points;
  }
};

/// A group with what of it has been run.
class Comparison {
 public:
  Comparison(const Group& group, const Results& results) : group_(group) {
    const std::string suffix = size_suffix(group.entries.front().system.key);
    for (const Entry& entry : group.entries) {
      SystemSummary system{&entry, entry.system.key, {}, results.rate(group, entry)};
      if (!suffix.empty() && system.key.ends_with(suffix)) system.key.resize(system.key.size() - suffix.size());
      for (Index seed = 1; seed <= entry.seeds; ++seed) {
        const Run run{Purpose::result, 0, 0, static_cast<std::uint64_t>(seed)};
        if (const Curve* curve = results.find(run.name(entry.system.key))) add_seed(system, seed, *curve);
      }
      systems_.push_back(std::move(system));
    }
  }

  const Group& group() const { return group_; }
  const std::vector<SystemSummary>& systems() const { return systems_; }
  const SystemSummary& plain() const { return systems_.front(); }
  /// Null if the group has no such system.
  const SystemSummary* find(std::string_view key) const {
    const auto found =
        std::find_if(systems_.begin(), systems_.end(), [&](const auto& system) { return system.key == key; });
    return found == systems_.end() ? nullptr : &*found;
  }
  /// Null unless it has run.
  const SystemSummary* finished(std::string_view key) const {
    const SystemSummary* system = find(key);
    return system != nullptr && system->has_run() ? system : nullptr;
  }
  /// The run of plain Mamba with a seed, or null.
  const Curve* plain_curve(Index seed) const { return curve_of(plain(), seed); }

 private:
  static std::string size_suffix(const std::string& plain) {
    constexpr std::string_view name = "mamba";
    return plain.starts_with(name) ? plain.substr(name.size()) : "";
  }
  static const Curve* curve_of(const SystemSummary& system, Index seed) {
    for (const SeedResult& result : system.seeds) {
      if (result.seed == seed) return result.curve;
    }
    return nullptr;
  }

  void add_seed(SystemSummary& system, Index seed, const Curve& curve) const {
    if (curve.points.size() < 2) return;
    SeedResult result{seed, &curve, false, std::nullopt};
    const bool is_plain = systems_.empty();  // the first
    const Curve* reference = is_plain ? &curve : curve_of(systems_.front(), seed);
    result.compared = reference != nullptr;
    if (is_plain) {
      result.speed_up = 1;
    } else if (reference != nullptr) {
      result.speed_up = speed_up(curve, *reference);
    }
    system.seeds.push_back(result);
  }

  const Group& group_;
  std::vector<SystemSummary> systems_;
};

/// Speed-ups of a system in the course of plain Mamba's training.
struct Course {
  std::vector<Index> steps;                               ///< of plain Mamba's evaluations
  std::vector<std::vector<std::optional<double>>> seeds;  ///< for each seed, for each of them
  std::vector<std::optional<double>> median;
};

inline Course course_of(const Comparison& comparison, const SystemSummary& system) {
  Course course;
  for (const SeedResult& seed : system.seeds) {
    const Curve* plain = comparison.plain_curve(seed.seed);
    if (plain == nullptr) continue;
    if (course.steps.empty()) {
      for (std::size_t i = 1; i < plain->points.size(); ++i) course.steps.push_back(plain->points[i].step);
    }
    course.seeds.push_back(speed_up_along(*seed.curve, *plain));
    course.seeds.back().resize(course.steps.size());
  }
  for (std::size_t i = 0; i < course.steps.size(); ++i) {
    std::vector<std::optional<double>> values;
    for (const auto& seed : course.seeds) values.push_back(seed[i]);
    course.median.push_back(median_speed_up(values));
  }
  return course;
}

/// The part of the page that a system belongs to.
enum class Role { main, expert_count, ratio, inner };

/// The number of experts in a key such as "moe-mamba-8" or "moe-mamba", which has 32.
inline std::optional<Index> expert_count(std::string_view key) {
  constexpr std::string_view name = "moe-mamba";
  if (key == name) return 32;
  if (!key.starts_with(std::string(name) + "-")) return std::nullopt;
  const std::string_view digits = key.substr(name.size() + 1);
  const bool number = !digits.empty() && digits.size() < 9 &&
                      std::all_of(digits.begin(), digits.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
  return number ? std::optional<Index>(std::atoi(std::string(digits).c_str())) : std::nullopt;
}

inline Role role(std::string_view key) {
  if (key.starts_with("share-")) return Role::ratio;
  if (key.starts_with("routed-") || key.starts_with("inner-")) return Role::inner;
  return key != "moe-mamba" && expert_count(key) ? Role::expert_count : Role::main;
}

/// The same colour for a system in all charts: an index into support::colours.
inline std::size_t colour_of(std::string_view key) {
  constexpr std::string_view keys[] = {"mamba",       "moe-mamba",       "mamba-mlp",    "parallel",
                                       "transformer", "transformer-moe", "total-control"};
  const auto found = std::find(std::begin(keys), std::end(keys), key);
  return static_cast<std::size_t>(found - std::begin(keys));
}

/// The systems of a role, in their order.
inline std::vector<const SystemSummary*> systems_of(const Comparison& comparison, Role wanted) {
  std::vector<const SystemSummary*> systems;
  for (const SystemSummary& system : comparison.systems()) {
    if (role(system.key) == wanted) systems.push_back(&system);
  }
  return systems;
}

}  // namespace paper
