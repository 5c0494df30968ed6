#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

/// Tables in files.
namespace paper {

/// A CSV file of which the first line names the columns. No cell has a comma.
class CsvTable {
 public:
  using Row = std::map<std::string, std::string>;

  /// None if there is no such file. Throws std::runtime_error for one without a wanted column, or with a row of another
  /// length than the first.
  static std::optional<CsvTable> read(const std::filesystem::path& path, const std::vector<std::string>& wanted) {
    std::ifstream file(path);
    if (!file) return std::nullopt;
    std::string line;
    std::getline(file, line);
    const std::vector<std::string> columns = cells_of(line);
    for (const std::string& name : wanted) {
      if (std::find(columns.begin(), columns.end(), name) == columns.end())
        throw std::runtime_error(path.string() + ": it has no column '" + name + "'");
    }
    CsvTable table;
    while (std::getline(file, line)) {
      const std::vector<std::string> cells = cells_of(line);
      if (cells.size() != columns.size()) throw std::runtime_error(path.string() + ": not a row of it: '" + line + "'");
      Row& row = table.rows_.emplace_back();
      for (std::size_t i = 0; i < cells.size(); ++i) row[columns[i]] = cells[i];
    }
    return table;
  }

  const std::vector<Row>& rows() const { return rows_; }
  /// The different values of a column, in the order of the rows.
  std::vector<std::string> values(const std::string& column) const {
    std::vector<std::string> values;
    for (const Row& row : rows_) {
      if (std::find(values.begin(), values.end(), row.at(column)) == values.end()) values.push_back(row.at(column));
    }
    return values;
  }

 private:
  static std::vector<std::string> cells_of(std::string line) {
    if (line.ends_with('\r')) line.pop_back();
    std::vector<std::string> cells;
    std::istringstream text(line + ",");
    for (std::string cell; std::getline(text, cell, ',');) cells.push_back(cell);
    return cells;
  }

  std::vector<Row> rows_;
};

inline double number(const CsvTable::Row& row, const std::string& column) {
  return std::strtod(row.at(column).c_str(), nullptr);
}

}  // namespace paper
