#pragma once

#include <algorithm>
#include <cctype>
#include <cmath>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terminal.hpp"

/// SVG charts for light and dark pages.
namespace quickstart {

/// Escapes a text for HTML and SVG.
inline std::string escaped(std::string_view text) {
  std::string result;
  for (const char character : text) {
    switch (character) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      default:
        result += character;
    }
  }
  return result;
}

/// The style of all charts. Colours are literal rather than CSS variables, which not every viewer supports.
inline constexpr std::string_view chart_style = R"(
  svg.chart { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; }
  .chart text { fill: #475467; } .chart .title { fill: #101828; font-weight: 600; font-size: 15px; }
  .chart .grid { stroke: #e4e7ec; } .chart .axis { stroke: #98a2b3; } .chart .mark { stroke: #667085; stroke-dasharray: 5 4; }
  .chart polyline { fill: none; stroke-width: 2.25; stroke-linejoin: round; }
  .chart .thin { stroke-width: 1.25; opacity: .55; }
  .chart .first { stroke: #1d4ed8; } .chart .second { stroke: #c2410c; } .chart circle { stroke: none; }
  .chart circle.first { fill: #1d4ed8; } .chart circle.second { fill: #c2410c; } .chart .heat { fill: #1d4ed8; }
  @media (prefers-color-scheme: dark) {
    .chart text { fill: #b4bcc9; } .chart .title { fill: #f2f4f7; }
    .chart .grid { stroke: #2b3340; } .chart .axis { stroke: #667085; } .chart .mark { stroke: #98a2b3; }
    .chart .first { stroke: #84adff; } .chart .second { stroke: #fdb022; }
    .chart circle.first { fill: #84adff; } .chart circle.second { fill: #fdb022; } .chart .heat { fill: #84adff; }
  }
)";

/// An axis from `low` to `high` with a label such as "bits per byte".
struct Axis {
  std::string label;
  double low = 0, high = 1;
};

/// About `count` round numbers that span an axis, with the largest suitable step of 1, 2 or 5 times a power of ten.
inline std::vector<double> ticks(const Axis& axis, int count) {
  const double span = std::max(axis.high - axis.low, 1e-12), rough = span / count;
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  double distance = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0}) {
    if (factor * power >= rough) distance = factor * power;
  }
  std::vector<double> values;
  for (double value = std::ceil(axis.low / distance - 1e-9) * distance; value <= axis.high + 1e-9 * span;
       value += distance) {
    values.push_back(std::abs(value) < 1e-9 * distance ? 0.0 : value);
  }
  return values;
}

/// A line chart with one x and one y axis. Lines are clipped to the axes' ranges.
class LineChart {
 public:
  using Points = std::vector<std::pair<double, double>>;

  LineChart(std::string title, Axis x, Axis y) : title_(std::move(title)), x_(std::move(x)), y_(std::move(y)) {}

  /// Adds a line with CSS classes ("first", "second", "first thin") and a label in the legend.
  void line(const Points& points, const std::string& classes, const std::string& label, bool dots = false) {
    if (points.empty()) return;
    std::string text;
    for (const auto& [x, y] : points) text += format("%.1f,%.1f ", place_x(x), place_y(y));
    body_ += "<polyline class=\"" + classes + "\" points=\"" + text + "\"/>\n";
    for (std::size_t i = 0; dots && i < points.size(); ++i) {
      body_ += format("<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"2.6\"/>\n", classes.c_str(),
                      place_x(points[i].first), place_y(points[i].second));
    }
    legend_ += format("<polyline class=\"%s\" points=\"%.0f,%.0f %.0f,%.0f\"/>", classes.c_str(), legend_at_, top - 17,
                      legend_at_ + 24, top - 17);
    legend_ += format("<text x=\"%.0f\" y=\"%.0f\">", legend_at_ + 30, top - 12.5) + escaped(label) + "</text>\n";
    legend_at_ += 48 + 7.0 * static_cast<double>(label.size());
  }

  /// Adds a dashed line at height y, with its name above or below it at the left end, where losses are still far above.
  void mark(double y, const std::string& label, bool above) {
    body_ += format("<line class=\"mark\" x1=\"%.0f\" y1=\"%.1f\" x2=\"%.0f\" y2=\"%.1f\"/>\n", left, place_y(y), right,
                    place_y(y));
    names_ +=
        format("<text x=\"%.0f\" y=\"%.1f\">", left + 6, place_y(y) + (above ? -5 : 15)) + escaped(label) + "</text>\n";
  }

  /// The chart as SVG; `standalone` makes it a complete file.
  std::string svg(bool standalone = false) const {
    std::string text = format(
        "<svg class=\"chart\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
        "height=\"%.0f\" role=\"img\">\n",
        width, height, width, height);
    if (standalone) text += "<style>" + std::string(chart_style) + "</style>\n";
    text += format("<text class=\"title\" x=\"%.0f\" y=\"20\">", left) + escaped(title_) + "</text>\n";
    text += "<clipPath id=\"" + clip() + "\">";
    text += format("<rect x=\"%.0f\" y=\"%.0f\" width=\"%.0f\" height=\"%.0f\"/></clipPath>\n", left, top, right - left,
                   bottom - top);
    for (const double value : ticks(y_, 6)) {
      text += format("<line class=\"grid\" x1=\"%.0f\" y1=\"%.1f\" x2=\"%.0f\" y2=\"%.1f\"/>", left, place_y(value),
                     right, place_y(value));
      text += format("<text x=\"%.0f\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", left - 8, place_y(value) + 4.5,
                     tick_label(value).c_str());
    }
    for (const double value : ticks(x_, 8)) {
      text += format("<line class=\"axis\" x1=\"%.1f\" y1=\"%.0f\" x2=\"%.1f\" y2=\"%.0f\"/>", place_x(value), bottom,
                     place_x(value), bottom + 5);
      text += format("<text x=\"%.1f\" y=\"%.0f\" text-anchor=\"middle\">%s</text>\n", place_x(value), bottom + 20,
                     tick_label(value).c_str());
    }
    text +=
        format("<line class=\"axis\" x1=\"%.0f\" y1=\"%.0f\" x2=\"%.0f\" y2=\"%.0f\"/>\n", left, bottom, right, bottom);
    text += format("<text x=\"%.0f\" y=\"%.0f\" text-anchor=\"middle\">", 0.5 * (left + right), bottom + 42) +
            escaped(x_.label) + "</text>\n";
    text += format("<text transform=\"translate(18 %.0f) rotate(-90)\" text-anchor=\"middle\">", 0.5 * (top + bottom)) +
            escaped(y_.label) + "</text>\n";
    return text + "<g clip-path=\"url(#" + clip() + ")\">\n" + body_ + "</g>\n" + names_ + legend_ + "</svg>\n";
  }

 private:
  static constexpr double width = 860, height = 420, left = 70, right = 840, top = 62, bottom = 362;

  /// An id for the clip path that is unique in the page.
  std::string clip() const {
    std::string name = "frame-";
    for (const char character : title_) name += std::isalnum(static_cast<unsigned char>(character)) ? character : '-';
    return name;
  }
  static std::string tick_label(double value) { return value >= 1000 ? short_number(value) : format("%g", value); }
  double place_x(double x) const { return left + (right - left) * (x - x_.low) / (x_.high - x_.low); }
  double place_y(double y) const { return bottom - (bottom - top) * (y - y_.low) / (y_.high - y_.low); }

  std::string title_;
  Axis x_, y_;
  std::string body_, names_, legend_;
  double legend_at_ = left;
};

/// A column of a heat map: its end on the x axis, and the values from top to bottom.
struct HeatColumn {
  double end = 0;
  std::span<const double> values;
};

/// A heat map over an x axis from 0; larger values are darker, `full` is the darkest. Rows are numbered.
inline std::string heat_map(const std::string& title, const std::string& row_name, const std::string& x_label,
                            std::span<const HeatColumn> columns, double full) {
  if (columns.empty()) return "";
  constexpr double width = 860, left = 70, right = 840, top = 34, row_height = 15;
  const std::size_t rows = columns.front().values.size();
  const double bottom = top + row_height * static_cast<double>(rows), end = columns.back().end;
  std::string text = format(
      "<svg class=\"chart\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
      "height=\"%.0f\" role=\"img\">\n",
      width, bottom + 48, width, bottom + 48);
  text += format("<text class=\"title\" x=\"%.0f\" y=\"20\">", left) + escaped(title) + "</text>\n";
  const auto x_of = [&](double x) { return left + (right - left) * x / end; };
  double begin = 0;
  for (const HeatColumn& column : columns) {
    for (std::size_t row = 0; row < rows; ++row) {
      text += format(
          "<rect class=\"heat\" x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%.1f\" fill-opacity=\"%.3f\">"
          "<title>%s %zu: %.1f%%</title></rect>\n",
          x_of(begin), top + row_height * static_cast<double>(row), x_of(column.end) - x_of(begin) + 0.15,
          row_height - 1, std::clamp(column.values[row] / full, 0.0, 1.0), row_name.c_str(), row + 1,
          100 * column.values[row]);
    }
    begin = column.end;
  }
  for (std::size_t row = 0; row < rows; ++row) {
    text += format("<text x=\"%.0f\" y=\"%.1f\" text-anchor=\"end\" font-size=\"11\">%zu</text>", left - 8,
                   top + row_height * static_cast<double>(row) + 11, row + 1);
  }
  for (const double value : ticks({"", 0, end}, 8)) {
    text += format("<text x=\"%.1f\" y=\"%.0f\" text-anchor=\"middle\">%s</text>\n", x_of(value), bottom + 18,
                   value >= 1000 ? short_number(value).c_str() : format("%g", value).c_str());
  }
  text += format("<text x=\"%.0f\" y=\"%.0f\" text-anchor=\"middle\">", 0.5 * (left + right), bottom + 38) +
          escaped(x_label) + "</text>\n";
  text += format("<text transform=\"translate(18 %.0f) rotate(-90)\" text-anchor=\"middle\">", 0.5 * (top + bottom)) +
          escaped(row_name) + "</text>\n";
  return text + "</svg>\n";
}

}  // namespace quickstart
