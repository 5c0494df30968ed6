#pragma once

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <vector>

#include "csv.hpp"
#include "loss_charts.hpp"
#include "summary.hpp"
#include "support/chart.hpp"
#include "support/heat_map.hpp"
#include "support/terminal.hpp"

/// What the number of experts does, and what each of them does.
namespace paper {

namespace detail {

/// The systems that differ in their number of experts only, fewest first.
inline std::vector<const SystemSummary*> by_expert_count(const Comparison& comparison) {
  std::vector<const SystemSummary*> systems;
  for (const SystemSummary& system : comparison.systems()) {
    if (expert_count(system.key)) systems.push_back(&system);
  }
  std::stable_sort(systems.begin(), systems.end(), [](const auto* a, const auto* b) {
    return expert_count(a->key).value_or(0) < expert_count(b->key).value_or(0);
  });
  return systems;
}

}  // namespace detail

/// Final losses and speed-ups against the number of experts, as two charts; nothing before two of them have run.
inline std::string expert_count_charts(const Comparison& comparison) {
  using Points = support::LineChart::Points;
  std::vector<support::Tick> ticks;
  Points medians, dots, gains, gain_dots;
  double low = 1e300, high = 0, highest_gain = 1.5;
  for (const SystemSummary* system : detail::by_expert_count(comparison)) {
    const auto count = static_cast<double>(expert_count(system->key).value_or(1));
    ticks.emplace_back(count, support::format("%.0f", count));
    if (!system->has_run()) continue;
    const Spread loss = system->loss();
    medians.emplace_back(count, loss.median);
    low = std::min(low, loss.low);
    high = std::max(high, loss.high);
    for (const SeedResult& seed : system->seeds) {
      dots.emplace_back(count, seed.last().held_out);
      if (seed.speed_up) gain_dots.emplace_back(count, *seed.speed_up);
    }
    if (const auto gain = system->speed_up()) gains.emplace_back(count, *gain);
  }
  if (medians.size() < 2) return "";
  for (const auto& [count, gain] : gain_dots) {
    highest_gain = std::max(highest_gain, gain);
  }
  const double begin = ticks.front().first / 1.15, end = ticks.back().first * 1.15;
  const bool plain = comparison.plain().has_run();
  const double plain_loss = plain ? comparison.plain().loss().median : low;
  low = std::min(low, plain_loss);
  high = std::max(high, plain_loss);
  const double margin = std::max(0.08 * (high - low), 1e-3);
  const support::Axis experts{"experts, one of them active", begin, end, support::Scale::logarithmic, ticks};
  support::LineChart losses("Loss and number of experts", experts,
                            {"final held-out loss, nats per byte", low - margin, high + 2 * margin});
  if (plain) losses.mark(plain_loss, "plain Mamba", true, true);
  losses.line(medians, {.colour = 1}, "");
  losses.dots(dots, {.colour = 1});
  support::LineChart speed_ups("Speed-up and number of experts", experts,
                               {"plain Mamba's steps / steps to its final loss", 0, highest_gain + 0.15});
  speed_ups.mark(1, "as many steps as plain Mamba", false);
  speed_ups.line(gains, {.colour = 1}, "");
  speed_ups.dots(gain_dots, {.colour = 1});
  return losses.svg() + speed_ups.svg();
}

/// A router's choices: for each expert, how often it met each kind of byte.
struct RouterChoices {
  std::vector<std::string> kinds;
  std::vector<std::vector<double>> counts;  ///< by expert and kind

  double total(std::size_t expert) const {
    double total = 0;
    for (const double count : counts[expert]) total += count;
    return total;
  }
  std::size_t dominant(std::size_t expert) const {
    return static_cast<std::size_t>(std::max_element(counts[expert].begin(), counts[expert].end()) -
                                    counts[expert].begin());
  }
  /// Of all experts.
  std::vector<double> of_kinds() const {
    std::vector<double> sums(kinds.size());
    for (const auto& expert : counts) {
      for (std::size_t kind = 0; kind < kinds.size(); ++kind) sums[kind] += expert[kind];
    }
    return sums;
  }
  /// The share of bytes whose kind is right if it is guessed from their expert.
  double guessed() const {
    double right = 0, all = 0;
    for (std::size_t expert = 0; expert < counts.size(); ++expert) {
      right += counts[expert][dominant(expert)];
      all += total(expert);
    }
    return all > 0 ? right / all : 0;
  }
  /// The same for the most frequent kind of all.
  double guessed_without_expert() const {
    const std::vector<double> sums = of_kinds();
    double all = 0;
    for (const double sum : sums) all += sum;
    return all > 0 ? *std::max_element(sums.begin(), sums.end()) / all : 0;
  }
};

/// The routers in a run's file of choices; none if there is no such file.
inline std::vector<RouterChoices> router_choices(const std::filesystem::path& path) {
  const auto table = CsvTable::read(path, {"router", "expert", "kind", "count"});
  if (!table) return {};
  const std::vector<std::string> kinds = table->values("kind");
  std::vector<RouterChoices> routers;
  for (const CsvTable::Row& row : table->rows()) {
    const auto router = static_cast<std::size_t>(number(row, "router")),
               expert = static_cast<std::size_t>(number(row, "expert"));
    if (router >= table->rows().size() || expert >= table->rows().size())
      throw std::runtime_error(path.string() + ": a router or an expert beyond their number");
    if (routers.size() <= router) routers.resize(router + 1);
    RouterChoices& choices = routers[router];
    choices.kinds = kinds;
    if (choices.counts.size() <= expert) choices.counts.resize(expert + 1, std::vector<double>(kinds.size()));
    const auto kind = std::find(kinds.begin(), kinds.end(), row.at("kind")) - kinds.begin();
    choices.counts[expert][static_cast<std::size_t>(kind)] += number(row, "count");
  }
  return routers;
}

/// A router's experts, sorted by the kind of byte that each meets most, with their shares of the load.
inline std::string router_chart(const RouterChoices& choices, const std::string& title) {
  std::vector<std::size_t> order(choices.counts.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  const auto part = [&](std::size_t expert) {
    return choices.counts[expert][choices.dominant(expert)] / choices.total(expert);
  };
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    const bool unused_a = choices.total(a) == 0, unused_b = choices.total(b) == 0;
    if (unused_a || unused_b) return !unused_a && unused_b;
    if (choices.dominant(a) != choices.dominant(b)) return choices.dominant(a) < choices.dominant(b);
    return part(a) > part(b);
  });
  const auto column = [&](std::string name, std::vector<double> counts, double all) {
    double sum = 0;
    for (const double value : counts) sum += value;
    for (double& value : counts) value = sum > 0 ? value / sum : 0;
    return support::MatrixMap::Column{std::move(name), std::move(counts), all > 0 ? sum / all : 0};
  };
  double all = 0;
  for (std::size_t expert = 0; expert < choices.counts.size(); ++expert) all += choices.total(expert);
  support::MatrixMap map{title, "load", "experts, sorted by the kind they meet most", choices.kinds, {}};
  map.columns.push_back(column("all experts", choices.of_kinds(), all));
  for (const std::size_t expert : order) {
    map.columns.push_back(column("expert " + std::to_string(expert + 1), choices.counts[expert], all));
  }
  return map.svg();
}

}  // namespace paper
