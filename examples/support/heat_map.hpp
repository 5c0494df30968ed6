#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "chart.hpp"

/// Heat maps.
namespace support {

/// A column of a heat map: its end on the x axis, and the values from top to bottom.
struct HeatColumn {
  double end = 0;
  std::span<const double> values;
};

/// A heat map over an x axis from 0; larger values are darker, `full` is the darkest. Rows are numbered.
inline std::string heat_map(const std::string& title, const std::string& row_name, const std::string& x_label,
                            std::span<const HeatColumn> columns, double full) {
  if (columns.empty()) return "";
  constexpr double width = 560, left = 34, right = 544, top = 50, row_height = 15;
  const std::size_t rows = columns.front().values.size();
  const double bottom = top + row_height * static_cast<double>(rows);
  const Axis axis{x_label, 0, columns.back().end};
  const auto place = [&](double x) { return left + (right - left) * axis.share(x); };
  std::string text = svg_begin(width, bottom + 48, title);
  text += "<text x=\"0\" y=\"40\">" + escaped(row_name) + "</text>\n<g class=\"c0\">\n";
  double begin = 0;
  for (const HeatColumn& column : columns) {
    for (std::size_t row = 0; row < rows; ++row) {
      text += format(
          "<rect class=\"heat\" x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%.1f\" fill-opacity=\"%.3f\">"
          "<title>%s %zu: %.1f%%</title></rect>\n",
          place(begin), top + row_height * static_cast<double>(row), place(column.end) - place(begin) + 0.15,
          row_height - 1, std::clamp(column.values[row] / full, 0.0, 1.0), row_name.c_str(), row + 1,
          100 * column.values[row]);
    }
    begin = column.end;
  }
  text += "</g>\n";
  for (std::size_t row = 0; row < rows; ++row) {
    text += format("<text x=\"%.0f\" y=\"%.1f\" text-anchor=\"end\" font-size=\"12\">%zu</text>", left - 8,
                   top + row_height * static_cast<double>(row) + 11.5, row + 1);
  }
  for (const auto& [value, label] : ticks(axis, 8)) {
    text += format("<text x=\"%.1f\" y=\"%.0f\" text-anchor=\"middle\">", place(value), bottom + 18) + escaped(label) +
            "</text>\n";
  }
  return text + format("<text x=\"%.0f\" y=\"%.0f\" text-anchor=\"end\">", right, bottom + 38) + escaped(x_label) +
         "</text>\n</svg>\n";
}

/// A heat map of a few named rows and many columns, with a bar of the column's weight below each. The first column, which
/// stands for all others, is set apart.
struct MatrixMap {
  struct Column {
    std::string name;
    std::vector<double> values;  ///< from 0 to 1, from top to bottom
    double weight = 0;
  };

  std::string title, bar_name, x_label;
  std::vector<std::string> rows;
  std::vector<Column> columns;

  std::string svg() const {
    constexpr double width = chart_width, top = 32, row_height = 24, gap = 8, bars = 54;
    double left = text_width(bar_name);
    for (const std::string& row : rows) left = std::max(left, text_width(row));
    left += 8;
    const double first = 16, begin = left + first + gap,
                 cell = (width - 4 - begin) / static_cast<double>(columns.size() - 1);
    const double map_end = top + row_height * static_cast<double>(rows.size()), bottom = map_end + 10 + bars;
    double heaviest = 0;
    for (std::size_t i = 1; i < columns.size(); ++i) heaviest = std::max(heaviest, columns[i].weight);
    std::string text = svg_begin(width, bottom + 28, title);
    for (std::size_t row = 0; row < rows.size(); ++row) {
      text += format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">", left - 8,
                     top + row_height * (static_cast<double>(row) + 0.5) + 5) +
              escaped(rows[row]) + "</text>\n";
    }
    text += format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">", left - 8, bottom - 0.5 * bars + 5) +
            escaped(bar_name) + "</text>\n";
    for (std::size_t i = 0; i < columns.size(); ++i) {
      const Column& column = columns[i];
      const double x = i == 0 ? left : begin + cell * static_cast<double>(i - 1), wide = i == 0 ? first : cell;
      const double thin = wide > 4 ? 1 : 0;  // between columns
      text += format("<g class=\"c%d\">", i == 0 ? 6 : 0);
      for (std::size_t row = 0; row < rows.size(); ++row) {
        if (column.values[row] <= 0) continue;
        text += format(
                    "<rect class=\"heat\" x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%.1f\" "
                    "fill-opacity=\"%.3f\"><title>",
                    x, top + row_height * static_cast<double>(row), wide - thin, row_height - 1,
                    std::clamp(column.values[row], 0.0, 1.0)) +
                escaped(column.name + ", " + rows[row] + format(": %.0f%%", 100 * column.values[row])) +
                "</title></rect>";
      }
      if (i > 0 && heaviest > 0) {
        const double height = bars * column.weight / heaviest;
        text +=
            format(
                "<rect class=\"heat\" x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%.1f\" fill-opacity=\".6\"><title>",
                x, bottom - height, wide - thin, height) +
            escaped(column.name + format(": %.1f%%", 100 * column.weight)) + "</title></rect>";
      }
      text += "</g>\n";
    }
    text += format(
        "<rect class=\"axis\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"none\" "
        "stroke-opacity=\".5\"/>\n",
        begin - 1, top - 1, width - 2 - begin, map_end - top + 1);
    text += format("<line class=\"axis\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.0f\" y2=\"%.1f\"/>\n", begin, bottom, width - 4,
                   bottom);
    text += format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">all</text>\n", left + 0.5 * first, map_end + 18);
    return text + format("<text x=\"%.0f\" y=\"%.1f\" text-anchor=\"end\">", width - 4, bottom + 20) +
           escaped(x_label) + "</text>\n</svg>\n";
  }
};

}  // namespace support
