#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "chart.hpp"

/// A chart of a few values in each of many rows.
namespace support {

/// Rows of dots along one axis, each with its name and its result in words above it.
class DotChart {
 public:
  DotChart(std::string title, Axis x) : title_(std::move(title)), x_(std::move(x)) {}

  /// Adds a row; a bar is at `median`, unless that is not on the axis.
  void row(const std::string& name, const std::string& result, const std::vector<double>& values, double median,
           std::size_t colour) {
    rows_.push_back({name, result, values, median, colour});
  }

  /// Adds a dashed line through all rows.
  void mark(double x) { marks_.push_back(x); }

  std::string svg() const {
    constexpr double top = 34, row_height = 46;
    const double bottom = top + row_height * static_cast<double>(rows_.size());
    const auto grid = ticks(x_, 6);
    std::string text = svg_begin(width, bottom + 50, title_);
    double y = top;
    for (const Row& row : rows_) {
      text += format("<text class=\"name\" x=\"0\" y=\"%.0f\">", y + 16) + escaped(row.name) + "</text>";
      text += format("<text class=\"name\" x=\"%.0f\" y=\"%.0f\" text-anchor=\"end\">", right, y + 16) +
              escaped(row.result) + "</text>\n";
      for (const auto& [value, label] : grid) text += line("grid", place(value), y + 24, place(value), y + 38);
      for (const double x : marks_) text += line("mark", place(x), y + 22, place(x), y + 40);
      text += line("grid", left, y + 31, right, y + 31);
      for (const double value : row.values) {
        text += format("<circle class=\"c%zu\" cx=\"%.1f\" cy=\"%.0f\" r=\"5\" fill-opacity=\".6\"/>", row.colour,
                       place(value), y + 31);
      }
      if (x_.has(row.median) && row.median > 0) {
        text += line("median c" + std::to_string(row.colour), place(row.median), y + 22, place(row.median), y + 40);
      }
      y += row_height;
    }
    text += line("axis", left, bottom, right, bottom);
    for (const auto& [value, label] : grid) {
      text += format("<text x=\"%.1f\" y=\"%.0f\" text-anchor=\"middle\">", place(value), bottom + 18) +
              escaped(label) + "</text>\n";
    }
    return text + format("<text x=\"%.0f\" y=\"%.0f\" text-anchor=\"end\">", right, bottom + 40) + escaped(x_.label) +
           "</text>\n</svg>\n";
  }

 private:
  static constexpr double width = chart_width, left = 8, right = width - 8;

  struct Row {
    std::string name, result;
    std::vector<double> values;
    double median;
    std::size_t colour;
  };

  static std::string line(const std::string& classes, double x1, double y1, double x2, double y2) {
    return "<line class=\"" + classes +
           format("\" x1=\"%.1f\" y1=\"%.0f\" x2=\"%.1f\" y2=\"%.0f\"/>\n", x1, y1, x2, y2);
  }
  double place(double x) const { return left + (right - left) * x_.share(x); }

  std::string title_;
  Axis x_;
  std::vector<Row> rows_;
  std::vector<double> marks_;
};

}  // namespace support
