#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "loss_charts.hpp"
#include "summary.hpp"
#include "support/html.hpp"
#include "support/terminal.hpp"

/// Tables of what was compared and of what came out.
namespace paper {

namespace detail {

inline std::string count(Index value) { return support::grouped(static_cast<long long>(value)); }

/// The median of all seeds and, in small letters, each of them.
inline std::string with_seeds(const std::string& median, const std::vector<std::string>& seeds) {
  if (seeds.size() < 2) return median;
  std::string text = median + "<br><small>";
  for (std::size_t i = 0; i < seeds.size(); ++i) text += (i == 0 ? "" : " · ") + seeds[i];
  return text + "</small>";
}

/// With a sign that is as wide as a digit.
inline std::string difference(double value) {
  return (value < 0 ? "−" : "+") + support::format("%.4f", std::abs(value));
}

inline std::string losses(const SystemSummary& system) {
  std::vector<std::string> seeds;
  for (const SeedResult& seed : system.seeds) seeds.push_back(support::format("%.4f", seed.last().held_out));
  return with_seeds(support::format("%.4f", system.loss().median), seeds);
}

inline std::string speed_ups(const SystemSummary& system) {
  std::vector<std::string> seeds;
  for (const SeedResult& seed : system.seeds)
    seeds.push_back(!seed.compared  ? "–"
                    : seed.speed_up ? support::format("%.2f", *seed.speed_up)
                                    : times(seed.speed_up));
  if (system.speed_ups().empty()) return "–";
  return with_seeds(times(system.speed_up()), seeds);
}

/// The same speed-up where a step is paid for with something else than steps.
inline std::string speed_up_per(const SystemSummary& system, double cost, double plain_cost) {
  const auto speed_up = system.speed_up();
  return speed_up && cost > 0 ? times(*speed_up * plain_cost / cost) : "–";
}

/// The system whose learning rate an entry takes.
inline std::string lender(const Comparison& comparison, const Entry& entry) {
  for (const SystemSummary& other : comparison.systems()) {
    if (other.entry->system.key == entry.rate_of) return support::escaped(other.name());
  }
  return support::escaped(entry.rate_of);
}

inline std::string seeds_run(const SystemSummary& system) {
  return support::format("%zu of %lld", system.seeds.size(), static_cast<long long>(system.entry->seeds));
}

/// Why a system has no finished run.
inline std::string reason(const Comparison& comparison, const SystemSummary& system, const Results& results) {
  if (system.rate) {
    const Run first{Purpose::result, 0, *system.rate, 1};
    const auto checkpoint = results.folder() / (first.name(system.entry->system.key) + ".checkpoint.safetensors");
    return std::filesystem::exists(checkpoint) ? "not run to the end: saved on the way"
                                               : "not run: there was no time for it yet";
  }
  if (!system.entry->rate_of.empty())
    return "not run: it takes the learning rate of " + lender(comparison, *system.entry) + ", which is not chosen yet";
  const std::vector<double> rates = results.rates(*system.entry, comparison.group().recipe);
  std::size_t tried = 0;
  for (const double rate : rates) tried += results.tuning_loss(*system.entry, rate).has_value();
  return support::format("not run: %zu of %zu learning rates tried so far", tried, rates.size());
}

/// The learning rate, and the losses of those that were tried.
inline std::string rates(const Comparison& comparison, const SystemSummary& system, const Results& results) {
  if (!system.entry->rate_of.empty()) {
    return (system.rate ? support::format("%g", *system.rate) : std::string("–")) + "<br><small>that of " +
           lender(comparison, *system.entry) + "</small>";
  }
  std::string tried;
  for (const double rate : results.rates(*system.entry, comparison.group().recipe)) {
    const auto loss = results.tuning_loss(*system.entry, rate);
    if (!tried.empty()) tried += "<br>";
    const std::string text = support::format("%g: ", rate) + (loss ? support::format("%.4f", *loss) : "not run");
    tried += system.rate && rate == *system.rate ? "<b>" + text + "</b>" : text;
  }
  return tried;
}

}  // namespace detail

/// The definitions, their costs and their learning rates.
inline std::string definitions_table(const Comparison& comparison, const std::vector<const SystemSummary*>& systems,
                                     const Results& results) {
  support::HtmlTable table({"system", "active<br>parameters", "total<br>parameters", "training<br>MFLOP/byte",
                            "learning rate<br><small>tuning loss of those tried</small>", "definition"},
                           5);
  for (const SystemSummary* system : systems) {
    const moe_mamba::Cost& cost = system->cost();
    table.row({support::escaped(system->name()), detail::count(cost.active_parameters), detail::count(cost.parameters),
               support::format("%.3g", cost.training_flops_per_token / 1e6),
               detail::rates(comparison, *system, results),
               "<code>" + support::escaped(system->entry->system.definition) + "</code>"});
  }
  return table.html();
}

/// What came out.
inline std::string results_table(const Comparison& comparison, const std::vector<const SystemSummary*>& systems,
                                 const Results& results) {
  support::HtmlTable table({"system", "seeds<br>run", "held-out loss<br><small>nats per byte</small>",
                            "top-1<br>accuracy", "speed-up<br>in steps", "in<br>FLOPs", "in<br>time",
                            "training<br>time"});
  const SystemSummary& plain = comparison.plain();
  for (const SystemSummary* system : systems) {
    const std::string name = support::escaped(system->name());
    if (!system->has_run()) {
      table.row_without({name, detail::seeds_run(*system)}, detail::reason(comparison, *system, results));
      continue;
    }
    const auto accuracy = system->accuracy();
    const auto seconds_per_step = [](const SystemSummary& any) {
      return any.has_run() ? any.seconds().median / static_cast<double>(any.seeds.front().last().step) : 0;
    };
    table.row({name, detail::seeds_run(*system), detail::losses(*system),
               accuracy ? support::format("%.2f %%", 100 * accuracy->median) : "–", detail::speed_ups(*system),
               detail::speed_up_per(*system, flops_per_step(comparison, *system), flops_per_step(comparison, plain)),
               detail::speed_up_per(*system, seconds_per_step(*system), seconds_per_step(plain)),
               support::clock_time(system->seconds().median)});
  }
  return table.html();
}

/// Variants in one table, with their distance from plain Mamba and their cost.
inline std::string variants_table(const Comparison& comparison, const std::vector<const SystemSummary*>& systems,
                                  const Results& results) {
  support::HtmlTable table({"system", "held-out loss<br><small>nats per byte</small>", "minus<br>plain's",
                            "speed-up<br>in steps", "top-1<br>accuracy", "training<br>time", "active<br>parameters",
                            "total<br>parameters", "training<br>MFLOP/byte"});
  for (const SystemSummary* system : systems) {
    const moe_mamba::Cost& cost = system->cost();
    const bool reference = system->key == "moe-mamba";  // among its variants
    const std::string name = support::escaped(system->name()) + (reference ? ", 32 experts, 3 : 3" : "");
    const std::vector<std::string> costs = {detail::count(cost.active_parameters), detail::count(cost.parameters),
                                            support::format("%.3g", cost.training_flops_per_token / 1e6)};
    if (!system->has_run()) {
      table.row_without({name}, detail::reason(comparison, *system, results), costs);
      continue;
    }
    const auto accuracy = system->accuracy();
    const SystemSummary& plain = comparison.plain();
    std::vector<std::string> cells = {
        name,
        detail::losses(*system),
        plain.has_run() ? detail::difference(system->loss().median - plain.loss().median) : "–",
        detail::speed_ups(*system),
        accuracy ? support::format("%.2f %%", 100 * accuracy->median) : "–",
        support::clock_time(system->seconds().median)};
    cells.insert(cells.end(), costs.begin(), costs.end());
    table.row(cells);
  }
  return table.html();
}

namespace detail {

/// "gate-out" as "gate and output".
inline std::string projections(const std::string& key) {
  if (key == "all") return "all three";
  std::string text;
  std::istringstream parts(key);
  for (std::string part; std::getline(parts, part, '-');) {
    text += (text.empty() ? "" : " and ") + (part == "in" ? "input" : part == "out" ? "output" : part);
  }
  return text;
}

}  // namespace detail

/// Experts in place of projections: final losses by projection, form and layers, as far below or above plain Mamba's.
inline std::string inner_table(const Comparison& comparison, const std::vector<const SystemSummary*>& systems) {
  constexpr std::pair<const char*, const char*> columns[] = {
      {"routed-", "-every"}, {"routed-", "-other"}, {"inner-", "-every"}, {"inner-", "-other"}};
  std::vector<std::string> rows;
  for (const SystemSummary* system : systems) {
    const auto begin = system->key.find('-') + 1, end = system->key.rfind('-');
    if (end < begin) continue;
    const std::string key = system->key.substr(begin, end - begin);
    if (std::find(rows.begin(), rows.end(), key) == rows.end()) rows.push_back(key);
  }
  support::HtmlTable table({"experts in place of projections", "one router,<br>every layer",
                            "one router,<br>every other layer", "a router each,<br>every layer",
                            "a router each,<br>every other layer"});
  for (const std::string& key : rows) {
    std::vector<std::string> cells = {detail::projections(key)};
    for (const auto& [begin, end] : columns) {
      const std::string name = begin + key + end;
      const SystemSummary* system = comparison.find(name);
      if (system == nullptr) {
        cells.push_back("–");
      } else if (!system->has_run() || !comparison.plain().has_run()) {
        cells.push_back("<small>not run</small>");
      } else {
        cells.push_back(detail::difference(system->loss().median - comparison.plain().loss().median));
      }
    }
    table.row(cells);
  }
  return table.html();
}

}  // namespace paper
