#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "moe_mamba/io/atomic_file.hpp"
#include "support/arguments.hpp"
#include "support/terminal.hpp"
#include "tasks.hpp"

/// What the runs found.
namespace mechanism {

using support::format;

/// A system's accuracy on a task at one length.
struct Row {
  Task task;
  std::string system;
  Index active_parameters, training_length, steps;
  std::uint64_t seed;
  Index test_length;
  double accuracy;  ///< share of the answers that are right, 0 to 1
  Index examples;

  /// Whether the two are results of the same test.
  bool is_of(const Row& other) const {
    return task == other.task && system == other.system && active_parameters == other.active_parameters &&
           training_length == other.training_length && steps == other.steps && seed == other.seed &&
           test_length == other.test_length && examples == other.examples;
  }
};

inline constexpr std::string_view csv_head =
    "task,system,active parameters,training length,steps,seed,test length,accuracy,examples";

inline std::string csv(const Row& row) {
  std::string text = std::string(name_of(row.task)) + ',' + row.system;
  for (const Index value : {row.active_parameters, row.training_length, row.steps}) text += ',' + std::to_string(value);
  return text + ',' + std::to_string(row.seed) + ',' + std::to_string(row.test_length) +
         format(",%.6f,", row.accuracy) + std::to_string(row.examples);
}

/// Throws std::invalid_argument for a line that csv() does not write.
inline Row row_of(const std::string& line) {
  using support::number;
  std::vector<std::string> fields;
  std::istringstream stream(line);
  for (std::string field; std::getline(stream, field, ',');) fields.push_back(field);
  require(fields.size() == 9, "the number of columns", fields.size(), "9");
  const auto task =
      std::find_if(all_tasks.begin(), all_tasks.end(), [&](Task one) { return name_of(one) == fields[0]; });
  require(task != all_tasks.end(), "task", fields[0], "a task's name");
  const auto count = [&](const char* column, std::size_t field) {
    return number<Index>(column, fields[field], 0, Index{1} << 62, "an integer >= 0");
  };
  return {*task,
          fields[1],
          count("active parameters", 2),
          count("training length", 3),
          count("steps", 4),
          number<std::uint64_t>("seed", fields[5], 0, ~std::uint64_t{0}, "an integer from 0 to 2^64 - 1"),
          count("test length", 6),
          number<double>("accuracy", fields[7], 0, 1, "a number from 0 to 1"),
          count("examples", 8)};
}

/// The rows of a file; none where there is no file. Throws std::runtime_error for another file.
inline std::vector<Row> read_csv(const std::filesystem::path& path) {
  std::vector<Row> rows;
  if (!std::filesystem::exists(path)) return rows;
  std::ifstream file(path);
  std::string line;
  Index number = 1;
  try {
    std::getline(file, line);
    require(line == csv_head, "the first line", line, std::string(csv_head).c_str());
    while (std::getline(file, line)) {
      ++number;
      rows.push_back(row_of(line));
    }
  } catch (const std::invalid_argument& problem) {
    throw std::runtime_error(path.string() + ", line " + std::to_string(number) + ": " + problem.what() +
                             "; use --fresh to start over");
  }
  return rows;
}

/// Replaces the file at once, so that it never holds half a row.
inline void write_csv(const std::filesystem::path& path, std::span<const Row> rows) {
  std::string text = std::string(csv_head) + '\n';
  for (const Row& row : rows) text += csv(row) + '\n';
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(text)));
  file.commit();
}

/// One line per system, one column per length, in per cent, and the length up to which 99 % or more are right. Rows of a
/// system follow one another, by length.
inline std::string table(std::span<const Row> rows, Task task) {
  std::string head, body;
  for (std::size_t begin = 0, end = 0; begin < rows.size(); begin = end) {
    const Row& first = rows[begin];
    while (end < rows.size() && rows[end].task == first.task && rows[end].system == first.system) ++end;
    if (first.task != task) continue;
    Index solved = 0;
    bool kept = true;
    head.clear();
    body += format("  %-12s%9s", first.system.c_str(), support::grouped(first.active_parameters).c_str());
    for (const Row& row : rows.subspan(begin, end - begin)) {
      head += format("%8s", support::grouped(row.test_length).c_str());
      body += format("%8.1f", 100 * row.accuracy);
      kept = kept && row.accuracy >= 0.99;
      if (kept) solved = row.test_length;
    }
    body += format("%12s\n", solved > 0 ? support::grouped(solved).c_str() : "-");
  }
  if (body.empty()) return "";
  return std::string(name_of(task)) + format(": right answers in %%, by length\n  %-12s%9s", "", "active") + head +
         format("%12s\n", "99% up to") + body;
}

}  // namespace mechanism
