#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "claims.hpp"
#include "csv.hpp"
#include "experts_chart.hpp"
#include "inference_chart.hpp"
#include "loss_charts.hpp"
#include "mechanism_chart.hpp"
#include "study.hpp"
#include "summary.hpp"
#include "support/html.hpp"
#include "tables.hpp"

/// The page of a comparison: a self-contained HTML file.
namespace paper {

namespace detail {

inline std::string charts(const std::string& drawings) {
  return drawings.empty() ? "" : "<div class=\"charts\">\n" + drawings + "</div>\n";
}
inline std::string quiet(const std::string& text) { return "<p class=\"quiet\">" + text + "</p>\n"; }

/// The result in one sentence.
inline std::string headline(const Comparison& comparison) {
  const SystemSummary* mixture = comparison.finished("moe-mamba");
  if (mixture == nullptr || mixture->speed_ups().empty())
    return "Plain Mamba and MoE-Mamba have not both been trained to the end yet.";
  const auto all = mixture->speed_ups();
  const auto gain = mixture->speed_up();
  const std::string losses = support::format(" (%.3f nats per byte; MoE-Mamba ends at %.3f)",
                                             comparison.plain().loss().median, mixture->loss().median);
  if (!gain)
    return "MoE-Mamba <b>does not reach</b> plain Mamba's final held-out loss, " +
           (all.size() > 1 ? support::format("median of %zu seeds", all.size()) : std::string("with one seed")) +
           losses + ". This contradicts the paper.";
  std::vector<double> reached;
  for (const auto& value : all) {
    if (value) reached.push_back(*value);
  }
  const Spread range = spread(reached);
  const auto planned = static_cast<std::size_t>(mixture->entry->seeds);
  const std::string others = all.size() < planned ? support::format(" (%zu are planned)", planned) : "";
  std::string seeds = "one seed" + others;
  if (all.size() > 1) {
    seeds = support::format("median of %zu seeds", all.size()) + others + ", " +
            (reached.size() < all.size() ? support::format("of which %zu do not reach it", all.size() - reached.size())
                                         : support::format("%.2f–%.2f", range.low, range.high));
  }
  if (*gain < 1)
    return support::format("MoE-Mamba reaches plain Mamba's final held-out loss in <b>%.2f times as many steps</b>: ",
                           1 / *gain) +
           seeds + losses + ". This contradicts the paper.";
  return support::format("MoE-Mamba reaches plain Mamba's final held-out loss in <b>%.2f times fewer steps</b>: ",
                         *gain) +
         seeds + losses + ".";
}

inline std::string conditions(const Corpus& corpus) {
  using support::grouped;
  return grouped(static_cast<long long>(corpus.size())) + " bytes of text in " + grouped(corpus.files) +
         (corpus.files == 1 ? " file" : " different files") + " (" + support::escaped(corpus.label) + "), hash " +
         support::format("%016llx", static_cast<unsigned long long>(corpus.fingerprint)) + "; " +
         grouped(static_cast<long long>(corpus.held_out.size())) +
         " bytes of whole files held out. Losses and steps follow from definition, seed and text; times are those of "
         "this machine.";
}

/// A part of a group's systems, unless the group has none of them.
inline std::string variants(const Comparison& comparison, const std::vector<const SystemSummary*>& systems,
                            const Results& results, const std::string& title, const std::string& text,
                            const std::string& drawings = "") {
  if (systems.empty()) return "";
  return "<h3>" + title + "</h3>\n" + quiet(text) + charts(drawings) + variants_table(comparison, systems, results);
}

/// Which expert meets which bytes, in the first finished run of a system.
inline std::string specialisation_section(const SystemSummary& system, const Results& results) {
  if (!system.has_run()) return "";
  const Run run{Purpose::result, 0, 0, static_cast<std::uint64_t>(system.seeds.front().seed)};
  const auto routers = router_choices(results.folder() / (run.name(system.entry->system.key) + ".experts.csv"));
  std::string drawings, shares;
  for (std::size_t i = 0; i < routers.size(); ++i) {
    drawings += router_chart(routers[i], system.name() + support::format(", router %zu of %zu", i + 1, routers.size()));
    shares +=
        (i == 0 ? "" : "; ") + support::format("router %zu %.0f&nbsp;%% against %.0f&nbsp;%%", i + 1,
                                               100 * routers[i].guessed(), 100 * routers[i].guessed_without_expert());
  }
  if (drawings.empty()) return "";
  return "<h3>Load and specialisation of the experts: " + support::escaped(system.name()) + "</h3>\n" +
         quiet(
             "Seed " + std::to_string(system.seeds.front().seed) +
             " on held-out text. Each column is an expert: the darker, the larger a kind's share of its bytes; below, "
             "its share of all bytes. Guessing a byte's kind from its expert is right this often, against guessing "
             "the most frequent kind every time: " +
             shares + ".") +
         charts(drawings);
}

inline std::string group_section(const Comparison& comparison, const Results& results, bool first) {
  const auto systems = systems_of(comparison, Role::main);
  const Recipe& recipe = comparison.group().recipe;
  std::string text =
      quiet(support::grouped(recipe.steps) + " steps of " + support::escaped(recipe.text()) +
            ". Lines are medians over the seeds, bands reach from the least to the largest. Losses are of "
            "held-out text, without auxiliary losses.");
  bool any = false;
  for (const SystemSummary* system : systems) any = any || system->has_run();
  if (any) {
    text += charts(loss_chart(comparison, systems, Against::steps, "Loss against steps").svg() +
                   speed_up_chart(comparison) +
                   loss_chart(comparison, systems, Against::flops, "Loss against training compute").svg() +
                   loss_chart(comparison, systems, Against::seconds, "Loss against training time").svg() +
                   steps_chart(comparison, systems));
  }
  text += "<h3>Results</h3>\n" + results_table(comparison, systems, results) +
          quiet(
              "A loss is reached where two evaluations in a row, of 100 in a run, are not above it. A speed-up is what "
              "plain Mamba's whole run costs over what the system needs to the same loss, seed by seed. Times are of "
              "training alone, on this machine, with other runs beside.");
  const std::string claims = claims_table(comparison, first);
  if (!claims.empty()) text += "<h3>What the paper says</h3>\n" + claims;
  text += "<h3>Definitions, costs and learning rates</h3>\n" + definitions_table(comparison, systems, results) +
          quiet(support::format(
              "Learning rates are chosen by runs of %s steps, measured on text that is used for nothing "
              "else; a best one at an end of those tried brings another beyond it. The longer runs have %g times "
              "the best one, since the best rate falls with the number of tokens.",
              support::grouped(recipe.tuning_steps).c_str(), recipe.rate_factor));
  if (!systems_of(comparison, Role::expert_count).empty()) {
    text += variants(comparison, by_expert_count(comparison), results, "Number of experts",
                     "One expert is active for each byte, whatever their number.", expert_count_charts(comparison));
  }
  auto ratios = systems_of(comparison, Role::ratio);
  if (!ratios.empty()) {
    if (const SystemSummary* mixture = comparison.find("moe-mamba")) {
      const auto after =
          std::find_if(ratios.begin(), ratios.end(), [](const auto* each) { return each->key > "share-3"; });
      ratios.insert(after, mixture);
    }
  }
  text += variants(comparison, ratios, results, "Ratio of Mamba to experts",
                   "Active parameters in Mamba layers to those in experts; MoE-Mamba itself has 3 : 3.");
  if (const auto inner = systems_of(comparison, Role::inner); !inner.empty()) {
    text +=
        "<h3>Experts inside Mamba</h3>\n" +
        quiet(
            "Experts in place of projections: linear ones behind one router (Routing Mamba), or such of two matrices "
            "behind a router each (the paper's Inner MoE). Final held-out losses minus plain Mamba's, in nats per "
            "byte.") +
        inner_table(comparison, inner) + "<details><summary>Each with its cost</summary>\n" +
        variants_table(comparison, inner, results) + "</details>\n";
  }
  for (const char* key : {"moe-mamba", "transformer-moe"}) {
    if (const SystemSummary* system = comparison.finished(key)) text += specialisation_section(*system, results);
  }
  return text;
}

inline std::string inference_section(const std::filesystem::path& folder) {
  std::string text = "<h2>Inference against context</h2>\n";
  const auto table =
      CsvTable::read(folder / "inference.csv", {"system", "context", "microseconds_per_token", "state_bytes"});
  if (!table || table->rows().empty()) return text + quiet("Not measured.");
  return text +
         quiet(
             "Time to generate one byte after a context, and the bytes that a sequence carries along, on this "
             "machine.") +
         charts(inference_charts(*table)) + quiet(inference_sentence(*table)) + inference_table(*table);
}

inline std::string mechanism_section(const std::filesystem::path& folder) {
  std::string text = "<h2>Mechanism: selective copying and induction heads</h2>\n";
  const auto table =
      CsvTable::read(folder / "mechanism.csv", {"task", "system", "training length", "test length", "accuracy"});
  if (!table || table->rows().empty()) return text + quiet("Not run.");
  return text +
         quiet(
             "Small models on synthetic tasks: the answer must be picked out of what came before, also at lengths "
             "beyond those of the training. Medians of the seeds.") +
         mechanism_results(*table);
}

}  // namespace detail

/// The page; `folder` may have inference.csv and mechanism.csv.
inline std::string page_html(const std::filesystem::path& folder, const std::vector<Group>& groups,
                             const Results& results, const Corpus& corpus) {
  std::vector<Comparison> comparisons;
  for (const Group& group : groups) comparisons.emplace_back(group, results);
  std::string text = "<h1>MoE-Mamba against plain Mamba and others</h1>\n";
  for (const Comparison& comparison : comparisons) {
    text += "<p class=\"lead\">" +
            (comparisons.size() > 1 ? support::escaped(comparison.group().title) + ": " : std::string()) +
            detail::headline(comparison) + "</p>\n";
  }
  text += detail::quiet(detail::conditions(corpus));
  const std::string sizes = sizes_chart(comparisons);
  if (!sizes.empty()) text += "<h2>By size</h2>\n" + detail::charts(sizes);
  for (const Comparison& comparison : comparisons) {
    text += "<h2>" + support::escaped(comparison.group().title) + "</h2>\n" +
            detail::group_section(comparison, results, &comparison == &comparisons.front());
  }
  text += detail::inference_section(folder) + detail::mechanism_section(folder);
  return support::html_page("MoE-Mamba against plain Mamba", support::chart_style(), text);
}

/// Writes the page. Throws std::runtime_error if it cannot be written, or for inference.csv or mechanism.csv beside it, or a
/// file of experts' choices, that is not what it should be.
inline void write_page(const std::filesystem::path& path, const std::vector<Group>& groups, const Results& results,
                       const Corpus& corpus) {
  write_text(path, page_html(path.parent_path(), groups, results, corpus));
}

/// Writes loss against steps for plain Mamba and MoE-Mamba as a drawing of its own; nothing before both have run.
inline void write_loss_drawing(const std::filesystem::path& path, const Group& group, const Results& results) {
  const Comparison comparison(group, results);
  const SystemSummary* mixture = comparison.finished("moe-mamba");
  if (mixture == nullptr || !comparison.plain().has_run()) return;
  write_text(path, loss_chart(comparison, {&comparison.plain(), mixture}, Against::steps,
                              "MoE-Mamba and plain Mamba, " + group.title, {.width = 640, .plot_height = 300})
                       .svg(true));
}

}  // namespace paper
