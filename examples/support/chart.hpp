#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "axis.hpp"
#include "html.hpp"
#include "terminal.hpp"

/// SVG charts for light and dark pages, with text that can be read in a window of 400 pixels.
namespace support {

/// Of lines, bands and dots, on light and on dark ground: told apart with any of the colour deficiencies, and of a contrast of
/// at least 3 to the ground.
inline constexpr std::pair<const char*, const char*> colours[] = {
    {"#0b5bd3", "#5b9bff"}, {"#d1490c", "#ff8a3d"}, {"#22a878", "#33ec94"}, {"#7b3b86", "#ae65a7"},
    {"#86492d", "#ffe21c"}, {"#769aac", "#ddccff"}, {"#412d3b", "#898477"}, {"#09006d", "#dcffef"}};
inline constexpr std::size_t colour_count = sizeof(colours) / sizeof(colours[0]);

/// The style of all charts. Colours are literal rather than CSS variables, which not every viewer supports.
inline std::string chart_style() {
  std::string light, dark;
  for (std::size_t i = 0; i < colour_count; ++i) {
    light += format("  .chart .c%zu { color: %s; }", i, colours[i].first);
    dark += format("    .chart .c%zu { color: %s; }", i, colours[i].second);
  }
  return R"(
  svg.chart { font: 14px system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif; }
  .chart text { fill: #475467; } .chart .title { fill: #101828; font-weight: 600; font-size: 15px; }
  .chart .name { fill: #101828; paint-order: stroke; stroke: #fff; stroke-width: 4px; stroke-linejoin: round; }
  .chart .grid { stroke: #e4e7ec; } .chart .axis { stroke: #98a2b3; } .chart .minor { stroke: #d0d5dd; }
  .chart .mark { stroke: #667085; stroke-dasharray: 5 4; } .chart .arrow { stroke: #101828; stroke-width: 1.5; fill: none; }
  .chart polyline { stroke: currentColor; fill: none; stroke-width: 2.25; stroke-linejoin: round; stroke-linecap: round; }
  .chart .thin { stroke-width: 1.2; opacity: .55; } .chart .dashed { stroke-dasharray: 6 4; }
  .chart circle, .chart .heat, .chart .band { fill: currentColor; stroke: none; } .chart .band { fill-opacity: .2; }
  .chart .median { stroke: currentColor; stroke-width: 2.5; }
)" + light +
         R"(
  @media (prefers-color-scheme: dark) {
    .chart text { fill: #b4bcc9; } .chart .title { fill: #f2f4f7; }
    .chart .name { fill: #f2f4f7; stroke: #12161d; } .chart .arrow { stroke: #f2f4f7; }
    .chart .grid { stroke: #2b3340; } .chart .axis { stroke: #667085; } .chart .minor { stroke: #475467; }
    .chart .mark { stroke: #98a2b3; }
)" + dark +
         "\n  }\n";
}

/// The first tag of a chart, with the style in it where it is to be a file of its own.
inline std::string svg_begin(double width, double height, const std::string& title, bool standalone = false) {
  const double margin = standalone ? 12 : 0;
  std::string text = format(
      "<svg class=\"chart\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"%.0f %.0f %.0f %.0f\" width=\"%.0f\" "
      "height=\"%.0f\" role=\"img\" aria-label=\"%s\">\n",
      -margin, -margin, width + 2 * margin, height + 2 * margin, width + 2 * margin, height + 2 * margin,
      escaped(title).c_str());
  if (standalone) text += "<style>" + chart_style() + "</style>\n";
  return text + "<text class=\"title\" x=\"0\" y=\"18\">" + escaped(title) + "</text>\n";
}

/// How a line is drawn.
struct LineStyle {
  std::size_t colour = 0;  ///< an index into `colours`
  bool thin = false, dashed = false, dots = false;

  std::string classes() const {
    return "c" + std::to_string(colour % colour_count) + (thin ? " thin" : "") + (dashed ? " dashed" : "");
  }
};

/// Such that 14 pixels of text are above 11 in a window of 400.
inline constexpr double chart_width = 450;

struct ChartSize {
  double width = chart_width, plot_height = 240;
};

/// A line chart. What lies outside the axes' ranges is cut off.
class LineChart {
 public:
  using Points = std::vector<std::pair<double, double>>;

  LineChart(std::string title, Axis x, Axis y, ChartSize size = {})
      : title_(std::move(title)), x_(std::move(x)), y_(std::move(y)), size_(size) {
    for (const Tick& tick : ticks(y_, 6)) left_ = std::max(left_, text_width(tick.second) + 8);
  }

  /// Adds a line with a label in the legend, unless that is empty.
  void line(const Points& points, const LineStyle& style, const std::string& label) {
    std::string text;
    for (const auto& [x, y] : points) {
      if (x_.has(x) && y_.has(y)) text += format("%.1f,%.1f ", place_x(x), place_y(y));
    }
    if (text.empty()) return;
    body_ += "<polyline class=\"" + style.classes() + "\" points=\"" + text + "\"/>\n";
    if (style.dots) dots(points, style);
    if (!label.empty()) legend_.push_back({style, label});
  }

  /// Adds a dot for each point.
  void dots(const Points& points, const LineStyle& style) {
    for (const auto& [x, y] : points) {
      if (!x_.has(x) || !y_.has(y)) continue;
      body_ += format("<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"/>\n", style.classes().c_str(),
                      place_x(x), place_y(y), style.thin ? 2.5 : 3.5);
    }
  }

  /// Fills what is between two lines.
  void band(const Points& lower, const Points& upper, const LineStyle& style) {
    std::string text;
    const auto add = [&](const std::pair<double, double>& point) {
      if (x_.has(point.first) && y_.has(point.second))
        text += format("%.1f,%.1f ", place_x(point.first), place_y(point.second));
    };
    std::for_each(lower.begin(), lower.end(), add);
    std::for_each(upper.rbegin(), upper.rend(), add);
    if (!text.empty()) body_ = "<polygon class=\"band " + style.classes() + "\" points=\"" + text + "\"/>\n" + body_;
  }

  /// Adds a dashed line at height y, with its name above or below it at the left or right end.
  void mark(double y, const std::string& label, bool above, bool at_right = false) {
    if (!y_.has(y)) return;
    body_ += format("<line class=\"mark\" x1=\"0\" y1=\"%.1f\" x2=\"%.0f\" y2=\"%.1f\"/>\n", place_y(y), plot_width(),
                    place_y(y));
    names_ += format("<text class=\"name\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", at_right ? plot_width() - 4 : 6,
                     place_y(y) + (above ? -6 : 16), at_right ? "end" : "start") +
              escaped(label) + "</text>\n";
  }

  /// Adds a dashed line at x, with its name at the bottom.
  void mark_x(double x, const std::string& label) {
    if (!x_.has(x)) return;
    const double at = place_x(x);
    const bool right = at + 6 + text_width(label) < plot_width();
    body_ += format("<line class=\"mark\" x1=\"%.1f\" y1=\"0\" x2=\"%.1f\" y2=\"%.0f\"/>\n", at, at, size_.plot_height);
    names_ += format("<text class=\"name\" x=\"%.1f\" y=\"%.0f\" text-anchor=\"%s\">", at + (right ? 6 : -6),
                     size_.plot_height - 8, right ? "start" : "end") +
              escaped(label) + "</text>\n";
  }

  /// Adds an arrow along a height, with its name beyond its head, or where that is beyond the plot's left end, above it.
  void arrow(double from_x, double to_x, double y, const std::string& label) {
    if (!x_.has(from_x) || !x_.has(to_x) || !y_.has(y)) return;
    const double from = place_x(from_x), to = place_x(to_x), height = place_y(y), head = from < to ? -7 : 7;
    names_ += format("<path class=\"arrow\" d=\"M%.1f %.1f H%.1f m%.0f -4 L%.1f %.1f l%.0f 4\"/>\n", from, height, to,
                     head, to, height, head);
    const bool beyond = to > text_width(label) + 8;
    names_ += format("<text class=\"name\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", beyond ? to - 7 : 4,
                     height + (beyond ? 5 : -9), beyond ? "end" : "start") +
              escaped(label) + "</text>\n";
  }

  /// The chart as SVG; `standalone` makes it a complete file.
  std::string svg(bool standalone = false) const {
    double top = 46;
    const std::string legend = legend_rows(top);
    top += 14;
    std::string text = svg_begin(size_.width, top + size_.plot_height + 48, title_, standalone);
    text += "<text x=\"0\" y=\"37\">" + escaped(y_.label) + "</text>\n" + legend;
    text += format("<g transform=\"translate(%.1f %.1f)\">\n", left_, top) + axes();
    // A nested drawing cuts off what is outside it.
    constexpr double over = 4;
    text += format("<svg x=\"%.0f\" y=\"%.0f\" width=\"%.1f\" height=\"%.1f\" viewBox=\"%.0f %.0f %.1f %.1f\">\n",
                   -over, -over, plot_width() + 2 * over, size_.plot_height + 2 * over, -over, -over,
                   plot_width() + 2 * over, size_.plot_height + 2 * over);
    return text + body_ + "</svg>\n" + names_ + "</g>\n</svg>\n";
  }

 private:
  struct LegendEntry {
    LineStyle style;
    std::string label;
  };

  double plot_width() const { return size_.width - left_ - 16; }
  double place_x(double x) const { return plot_width() * x_.share(x); }
  double place_y(double y) const { return size_.plot_height * (1 - y_.share(y)); }

  /// As many rows as the entries need; `top` becomes where they end.
  std::string legend_rows(double& top) const {
    if (legend_.empty()) return "";
    std::string text;
    double x = 0, y = top + 12;
    for (const auto& [style, label] : legend_) {
      const double width = 32 + text_width(label);
      if (x > 0 && x + width > size_.width) {
        x = 0;
        y += 20;
      }
      text += format("<polyline class=\"%s\" points=\"%.1f,%.1f %.1f,%.1f\"/>", style.classes().c_str(), x + 2, y - 5,
                     x + 22, y - 5);
      text += format("<text x=\"%.1f\" y=\"%.1f\">", x + 28, y) + escaped(label) + "</text>\n";
      x += width + 14;
    }
    top = y;
    return text;
  }

  std::string axes() const {
    std::string text;
    const double height = size_.plot_height;
    for (const auto& [value, label] : ticks(y_, 6)) {
      text += format("<line class=\"grid\" x1=\"0\" y1=\"%.1f\" x2=\"%.0f\" y2=\"%.1f\"/>", place_y(value),
                     plot_width(), place_y(value));
      text +=
          format("<text x=\"-8\" y=\"%.1f\" text-anchor=\"end\">", place_y(value) + 5) + escaped(label) + "</text>\n";
    }
    if (x_.scale == Scale::logarithmic && x_.ticks.empty() && x_.high < 1e4 * x_.low) text += minor_ticks();
    double free_from = -1e9;  // labels that would touch are left out
    for (const auto& [value, label] : ticks(x_, 7)) {
      const double at = place_x(value), half = 0.5 * text_width(label);
      text +=
          format("<line class=\"axis\" x1=\"%.1f\" y1=\"%.0f\" x2=\"%.1f\" y2=\"%.0f\"/>", at, height, at, height + 5);
      if (at - half < free_from) continue;
      free_from = at + half + 4;
      text +=
          format("<text x=\"%.1f\" y=\"%.0f\" text-anchor=\"middle\">", at, height + 20) + escaped(label) + "</text>\n";
    }
    text +=
        format("<line class=\"axis\" x1=\"0\" y1=\"%.0f\" x2=\"%.0f\" y2=\"%.0f\"/>\n", height, plot_width(), height);
    return text + format("<text x=\"%.0f\" y=\"%.0f\" text-anchor=\"end\">", plot_width(), height + 41) +
           escaped(x_.label) + "</text>\n";
  }

  std::string minor_ticks() const {
    std::string text;
    for (double power = std::pow(10.0, std::floor(std::log10(x_.low))); power <= x_.high; power *= 10) {
      for (int factor = 1; factor < 10; ++factor) {
        const double share = x_.share(factor * power);
        if (share < -1e-9 || share > 1 + 1e-9) continue;
        text += format("<line class=\"minor\" x1=\"%.1f\" y1=\"%.0f\" x2=\"%.1f\" y2=\"%.0f\"/>", plot_width() * share,
                       size_.plot_height, plot_width() * share, size_.plot_height + 3);
      }
    }
    return text + "\n";
  }

  std::string title_;
  Axis x_, y_;
  ChartSize size_;
  double left_ = 30;
  std::string body_, names_;
  std::vector<LegendEntry> legend_;
};

}  // namespace support
