#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "csv.hpp"
#include "inference_chart.hpp"
#include "summary.hpp"
#include "support/chart.hpp"
#include "support/html.hpp"
#include "support/terminal.hpp"

/// What the systems learn of copying, from the columns of the mechanism example.
namespace paper {

namespace detail {

/// Accuracies in per cent, one a seed, by system (in the order of the file) and test length.
struct TaskResults {
  std::string title;
  double trained = 0;  ///< at this length
  std::vector<std::string> systems;
  std::map<std::string, std::map<double, std::vector<double>>> accuracies;
  std::map<double, double> lengths;  ///< with the least accuracy at each
};

inline TaskResults task_results(const CsvTable& table, const std::string& task) {
  TaskResults results{task, 0, {}, {}, {}};
  std::replace(results.title.begin(), results.title.end(), '-', ' ');
  results.title.front() = static_cast<char>(std::toupper(static_cast<unsigned char>(results.title.front())));
  for (const CsvTable::Row& row : table.rows()) {
    if (row.at("task") != task) continue;
    const double length = number(row, "test length"), accuracy = 100 * number(row, "accuracy");
    const std::string& system = row.at("system");
    if (!results.accuracies.contains(system)) results.systems.push_back(system);
    results.accuracies[system][length].push_back(accuracy);
    const auto known = results.lengths.emplace(length, accuracy).first;
    known->second = std::min(known->second, accuracy);
    results.trained = number(row, "training length");
  }
  return results;
}

inline std::string task_chart(const TaskResults& results) {
  const double begin = results.lengths.begin()->first / 1.1, end = results.lengths.rbegin()->first * 1.1;
  double least = 100;
  for (const auto& [length, accuracy] : results.lengths) least = std::min(least, accuracy);
  support::LineChart chart(results.title,
                           {"length of the test", begin, end, support::Scale::logarithmic,
                            binary_ticks(begin, end, end > 100 * begin ? 4 : 2)},
                           {"right answers, %", least > 91 ? 90.0 : 0.0, 101});
  chart.mark_x(results.trained, "trained at");
  std::size_t position = 0;
  for (const std::string& system : results.systems) {
    const support::LineStyle style{.colour = colour_of_name(system, position++)};
    support::LineChart::Points medians, dots;
    for (const auto& [length, values] : results.accuracies.at(system)) {
      medians.emplace_back(length, spread(values).median);
      for (const double value : values) dots.emplace_back(length, value);
    }
    chart.line(medians, style, system);
    chart.dots(dots, style);
  }
  return chart.svg();
}

inline std::string task_table(const TaskResults& results) {
  std::vector<std::string> header = {support::escaped(results.title) +
                                     "<br><small>right answers, %, by length</small>"};
  for (const auto& [length, least] : results.lengths)
    header.push_back(support::grouped(static_cast<long long>(length)));
  support::HtmlTable table(header);
  for (const std::string& system : results.systems) {
    std::vector<std::string> cells = {support::escaped(system)};
    for (const auto& [length, least] : results.lengths) {
      const auto& by_length = results.accuracies.at(system);
      const auto found = by_length.find(length);
      cells.push_back(found == by_length.end() ? "–" : support::format("%.1f", spread(found->second).median));
    }
    table.row(cells);
  }
  return table.html();
}

}  // namespace detail

/// Accuracy against the length of the test: a chart for each task with three lengths or more, and tables.
inline std::string mechanism_results(const CsvTable& table) {
  std::string charts, tables;
  for (const std::string& task : table.values("task")) {
    const detail::TaskResults results = detail::task_results(table, task);
    if (results.lengths.size() >= 3) charts += detail::task_chart(results);
    tables += detail::task_table(results);
  }
  if (!charts.empty()) charts = "<div class=\"charts\">\n" + charts + "</div>\n";
  return charts + tables;
}

}  // namespace paper
