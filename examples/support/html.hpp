#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

/// Parts of self-contained HTML pages, light and dark, for wide and narrow windows.
namespace support {

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

/// Of all pages. What is wider than the window scrolls by itself, never the page.
inline constexpr std::string_view page_style = R"(
  :root { color-scheme: light dark; }
  body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif; color: #344054;
         background: #fff; max-width: 72rem; margin: 2.5rem auto; padding: 0 1.25rem; overflow-wrap: break-word; }
  h1, h2, h3, b { color: #101828; } h1 { font-size: 1.7rem; line-height: 1.3; margin-bottom: .3rem; }
  h2 { font-size: 1.3rem; margin-top: 2.8rem; } h2::first-letter { text-transform: uppercase; } h3 { font-size: 1.05rem; margin: 2rem 0 .4rem; }
  p, li { max-width: 46rem; } .quiet { color: #667085; font-size: .92rem; }
  .lead { font-size: 1.25rem; line-height: 1.45; color: #101828; } .lead::first-letter { text-transform: uppercase; }
  .charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: 1.2rem 2rem;
            align-items: start; margin: 1rem 0; }
  .charts svg.chart { width: 100%; max-width: 34rem; }
  svg.chart { max-width: 100%; height: auto; display: block; }
  .wide { overflow-x: auto; margin: 1rem 0; }
  table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
  th, td { padding: .3rem 1.1rem .3rem 0; border-bottom: 1px solid #e4e7ec; text-align: right; vertical-align: top; white-space: nowrap; }
  th:first-child, .prose { text-align: left; } th { font-weight: 400; } tbody th { white-space: normal; min-width: 8rem; } .prose { white-space: normal; min-width: 9rem; }
  thead th { font-weight: 600; color: #101828; vertical-align: bottom; }
  td small, th small { color: #667085; font-size: .85em; } tr.missing th, tr.missing td { color: #667085; }
  pre, code { font-family: ui-monospace, "Liberation Mono", monospace; font-size: .85rem; }
  pre { background: #f5f6f8; padding: 1rem; border-radius: 6px; overflow-x: auto; white-space: pre-wrap; }
  details { margin: 1rem 0; } summary { cursor: pointer; }
  @media (prefers-color-scheme: dark) {
    body { color: #cbd2dc; background: #12161d; } h1, h2, h3, b, .lead, thead th { color: #f2f4f7; }
    th, td { border-color: #2b3340; } pre { background: #1b212b; }
    .quiet, td small, th small, tr.missing th, tr.missing td { color: #98a2b3; }
  }
  @media (max-width: 30rem) {
    thead th:first-child { white-space: normal; } table .prose { min-width: 10rem; }
    body { margin: 1.2rem auto; padding: 0 1rem; } h1 { font-size: 1.4rem; } .lead { font-size: 1.1rem; } }
)";

/// A whole page; `style` is added to that of all pages.
inline std::string html_page(const std::string& title, std::string_view style, const std::string& body) {
  return R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>)" +
         escaped(title) + "</title>\n<style>" + std::string(page_style) + std::string(style) +
         "</style></head>\n<body>\n" + body + "</body></html>\n";
}

/// A table of which the first column names the rows. Cells are HTML: numbers, and from column `prose` on text that is broken
/// into lines.
class HtmlTable {
 public:
  explicit HtmlTable(const std::vector<std::string>& columns, std::size_t prose = std::string::npos)
      : columns_(columns.size()), prose_(prose) {
    text_ = "<thead><tr>";
    for (std::size_t i = 0; i < columns.size(); ++i)
      text_ += "<th scope=\"col\"" + style(i) + ">" + columns[i] + "</th>";
    text_ += "</tr></thead><tbody>\n";
  }

  void row(const std::vector<std::string>& cells) { text_ += "<tr>" + begin(cells) + "</tr>\n"; }

  /// A row that begins with `before`, ends with `after`, and says why there is nothing between them.
  void row_without(const std::vector<std::string>& before, const std::string& reason,
                   const std::vector<std::string>& after = {}) {
    text_ += "<tr class=\"missing\">" + begin(before) + "<td class=\"prose\" colspan=\"" +
             std::to_string(columns_ - before.size() - after.size()) + "\">" + reason + "</td>";
    for (const std::string& cell : after) text_ += "<td>" + cell + "</td>";
    text_ += "</tr>\n";
  }

  std::string html() const {
    return "<div class=\"wide\" tabindex=\"0\"><table>\n" + text_ + "</tbody></table></div>\n";
  }

 private:
  std::string style(std::size_t column) const { return column >= prose_ ? " class=\"prose\"" : ""; }
  std::string begin(const std::vector<std::string>& cells) const {
    std::string text = "<th scope=\"row\"" + style(0) + ">" + cells.front() + "</th>";
    for (std::size_t i = 1; i < cells.size(); ++i) text += "<td" + style(i) + ">" + cells[i] + "</td>";
    return text;
  }

  std::size_t columns_, prose_;
  std::string text_;
};

}  // namespace support
