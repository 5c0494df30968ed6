#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <numbers>
#include <string>
#include <string_view>
#include <vector>

#include "corpus.hpp"
#include "history.hpp"
#include "moe_mamba/model/cost.hpp"
#include "plan.hpp"
#include "support/chart.hpp"
#include "support/heat_map.hpp"
#include "support/html.hpp"
#include "support/terminal.hpp"

/// The report of a run: a self-contained HTML file.
namespace quickstart {

inline double bits(double nats) { return nats / std::numbers::ln2; }

/// A trained model in the report.
struct TrainedModel {
  std::string name;  ///< "MoE-Mamba"
  Plan plan;
  moe_mamba::Cost cost;
  History history;
  Index tokens_per_step = 0;

  /// At the end, in nats per byte.
  double held_out_loss() const { return history.held_out().back().loss; }
  /// Bytes read in training up to a step.
  Index bytes(Index step) const { return step * tokens_per_step; }
  Index bytes() const { return bytes(plan.steps); }
  double megabytes(Index step) const { return 1e-6 * static_cast<double>(bytes(step)); }
};

/// Facts of the report other than the models.
struct ReportFacts {
  double gzip_bits = -1, xz_bits = -1;  ///< per held-out byte; negative if the program is missing
  int threads = 1;
  std::string settings;  ///< description of the training settings
  std::string prompt, generated;
};

namespace detail {

/// Replaces invalid UTF-8 and control characters.
inline std::string readable(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const std::size_t length = lead < 0x80 ? 1 : lead >= 0xc2 && lead < 0xe0 ? 2 : lead >= 0xe0 && lead < 0xf0 ? 3 : 0;
    bool whole = length > 0 && i + length <= text.size();
    for (std::size_t k = 1; whole && k < length; ++k) whole = (static_cast<unsigned char>(text[i + k]) & 0xc0) == 0x80;
    const bool control = length == 1 && lead < 0x20 && lead != '\n' && lead != '\t';
    if (whole && !control && lead != 0x7f && lead != 0xe0 && lead != 0xed) {
      result += text.substr(i, length);
      i += length;
    } else {
      result += "\xef\xbf\xbd";
      ++i;
    }
  }
  return result;
}

/// A table with a column for each model.
class ModelTable {
 public:
  explicit ModelTable(const std::vector<TrainedModel>& models) : models_(models), table_(header(models)) {}

  /// f(model) for each model, as a row.
  template <class F>
  void row(const std::string& name, const F& f) {
    std::vector<std::string> cells = {name};
    for (const auto& model : models_) cells.push_back(f(model));
    table_.row(cells);
  }
  std::string html() const { return table_.html(); }

 private:
  static std::vector<std::string> header(const std::vector<TrainedModel>& models) {
    std::vector<std::string> cells = {""};
    for (const auto& model : models) cells.push_back(escaped(model.name));
    return cells;
  }

  const std::vector<TrainedModel>& models_;
  HtmlTable table_;
};

inline std::string facts_table(const std::vector<TrainedModel>& models) {
  const auto count = [](moe_mamba::Index value) { return grouped(static_cast<long long>(value)); };
  ModelTable table(models);
  table.row("held-out loss, nats per byte", [](const auto& m) { return format("%.4f", m.held_out_loss()); });
  table.row("held-out bits per byte",
            [](const auto& m) { return "<b>" + format("%.3f", bits(m.held_out_loss())) + "</b>"; });
  table.row("parameters", [&](const auto& m) { return count(m.cost.parameters); });
  table.row("of them active per byte", [&](const auto& m) { return count(m.cost.active_parameters); });
  table.row("MFLOP per byte, forward", [](const auto& m) { return format("%.2f", m.cost.flops_per_token / 1e6); });
  table.row("MFLOP per byte, training",
            [](const auto& m) { return format("%.2f", m.cost.training_flops_per_token / 1e6); });
  table.row("running state, bytes", [&](const auto& m) { return count(m.cost.state_bytes); });
  table.row("kept for the backward pass, bytes per token",
            [&](const auto& m) { return count(m.cost.activation_bytes_per_token); });
  table.row("training steps", [&](const auto& m) { return count(m.plan.steps); });
  table.row("bytes read in training", [&](const auto& m) { return count(m.bytes()); });
  table.row("time, min:s", [](const auto& m) { return clock_time(m.history.seconds()); });
  table.row("bytes per second, pauses included", [](const auto& m) {
    return short_number(static_cast<double>(m.bytes()) / std::max(m.history.seconds(), 1e-9));
  });
  return table.html();
}

}  // namespace detail

inline constexpr ChartSize chart_size{.width = 560, .plot_height = 280};

/// Training and held-out loss over the bytes read, in bits per byte, with compressors for comparison.
inline LineChart loss_chart(const std::vector<TrainedModel>& models, const ReportFacts& facts) {
  double end = 0, low = 8;
  const auto note = [&](double value) {
    if (value > 0) low = std::min(low, value);
  };
  note(facts.gzip_bits);
  note(facts.xz_bits);
  for (const auto& model : models) {
    end = std::max(end, model.megabytes(model.plan.steps));
    for (const auto& point : model.history.points()) note(bits(point.loss));
    for (const auto& point : model.history.held_out()) note(bits(point.loss));
  }
  LineChart chart("Loss", {"bytes read in training, millions", 0, end},
                  {"bits per byte", std::floor(2 * low - 0.3) / 2,
                   std::max({4.0, std::ceil(low) + 1, 0.3 + std::max(facts.gzip_bits, facts.xz_bits)})},
                  chart_size);
  for (std::size_t i = 0; i < models.size(); ++i) {
    const auto& model = models[i];
    LineChart::Points training, held_out;
    for (const auto& point : model.history.points()) {
      training.emplace_back(model.megabytes(point.step), bits(point.loss));
    }
    for (const auto& point : model.history.held_out()) {
      held_out.emplace_back(model.megabytes(point.step), bits(point.loss));
    }
    chart.line(training, {.colour = i, .thin = true}, model.name + ", training");
    chart.line(held_out, {.colour = i, .dots = true}, model.name + ", held out");
  }
  const bool gzip_above = facts.gzip_bits >= facts.xz_bits;
  if (facts.gzip_bits > 0) chart.mark(facts.gzip_bits, format("gzip -9: %.2f", facts.gzip_bits), gzip_above);
  if (facts.xz_bits > 0) chart.mark(facts.xz_bits, format("xz -9: %.2f", facts.xz_bits), !gzip_above);
  return chart;
}

/// Bytes per second over the time of the run.
inline LineChart throughput_chart(const std::vector<TrainedModel>& models) {
  double end = 0, high = 0;
  for (const auto& model : models) {
    for (const auto& point : model.history.points()) {
      end = std::max(end, point.seconds / 60);
      high = std::max(high, point.tokens_per_second / 1000);
    }
  }
  LineChart chart("Throughput of training steps", {"minutes", 0, std::max(end, 1e-3)},
                  {"thousand bytes per second", 0, std::max(1.1 * high, 1e-3)}, chart_size);
  for (std::size_t i = 0; i < models.size(); ++i) {
    LineChart::Points points;
    for (const auto& point : models[i].history.points()) {
      points.emplace_back(point.seconds / 60, point.tokens_per_second / 1000);
    }
    chart.line(points, {.colour = i}, models[i].name);
  }
  return chart;
}

/// One heat map per mixture-of-experts layer: each expert's share of the tokens, over the bytes read.
inline std::string load_charts(const TrainedModel& model) {
  const auto& points = model.history.points();
  if (points.empty() || points.front().load.empty()) return "";
  std::string text;
  for (std::size_t layer = 0; layer < points.front().load.size(); ++layer) {
    std::vector<HeatColumn> columns;
    for (const auto& point : points) {
      columns.push_back({model.megabytes(point.step), point.load[layer]});
    }
    const double even = 1.0 / static_cast<double>(points.front().load[layer].size());
    text += heat_map(format("Mixture %zu of %zu", layer + 1, points.front().load.size()), "expert",
                     "bytes read in training, millions", columns, 2.5 * even);
  }
  return text;
}

inline std::string report_html(const Corpus& corpus, const std::vector<TrainedModel>& models,
                               const ReportFacts& facts) {
  std::string text = "<h1>A MoE-Mamba, trained on this machine</h1>\n";
  text += "<p class=\"quiet\">" + grouped(static_cast<long long>(corpus.size())) + " bytes of " +
          grouped(corpus.files.read) + (corpus.files.read == 1 ? " file: " : " files: ") + escaped(corpus.label) +
          ". " + format("%d thread%s. ", facts.threads, facts.threads == 1 ? "" : "s") +
          "Training: " + escaped(facts.settings) + ".</p>\n";
  text += format("<p>After %s minutes the model needs <b>%.2f bits per byte</b> of held-out text",
                 clock_time(models.front().history.seconds()).c_str(), bits(models.front().held_out_loss()));
  if (models.size() > 1)
    text += format("; plain Mamba with as many active parameters, %.2f", bits(models[1].held_out_loss()));
  text += ".</p>\n" + loss_chart(models, facts).svg();

  text += "<h2>Compared with compressors</h2>\n";
  HtmlTable table({"", "bits per byte"});
  for (const auto& model : models) table.row({escaped(model.name), format("%.3f", bits(model.held_out_loss()))});
  const auto compressor = [](double value) {
    return value > 0 ? format("%.3f", value) : std::string("the program is not installed");
  };
  table.row({"gzip -9", compressor(facts.gzip_bits)});
  table.row({"xz -9", compressor(facts.xz_bits)});
  text +=
      table.html() + "<p class=\"quiet\">All see the " + grouped(static_cast<long long>(corpus.held_out.size())) +
      " held-out bytes (held-out.txt), in blocks spread over the text. The compressors have seen no other text; the "
      "models were trained on the rest of it, and their size is not counted.</p>\n";

  text += "<h2>The model</h2>\n";
  for (const auto& model : models) text += "<pre>" + escaped(model.plan.definition) + "</pre>\n";
  text += detail::facts_table(models);
  const std::string load = load_charts(models.front());
  if (!load.empty()) {
    text +=
        "<h2>Load of the experts</h2>\n<p class=\"quiet\">Each expert's share of the bytes: blank for none, full "
        "colour "
        "for 2.5 times the uniform share or more.</p>\n" +
        load;
  }
  text += "<h2>Speed</h2>\n" + throughput_chart(models).svg();
  if (!facts.generated.empty()) {
    text += "<h2>Generated text</h2>\n<pre><b>" + escaped(detail::readable(facts.prompt)) + "</b>" +
            escaped(detail::readable(facts.generated)) + "</pre>\n";
  }
  return html_page("A MoE-Mamba on this machine", chart_style(), text);
}

}  // namespace quickstart
