#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "summary.hpp"
#include "support/html.hpp"
#include "support/terminal.hpp"

/// The paper's claims (Pióro et al. 2024, arXiv 2401.04081) beside what was found here.
namespace paper {

struct Claim {
  std::string claim;  ///< as the paper has it
  std::string here;   ///< what was found
  std::string verdict;
};

namespace detail {

/// Losses closer than what seeds differ by are not told apart.
inline double noise(const Comparison& comparison) {
  double noise = 0.003;
  for (const SystemSummary& system : comparison.systems()) {
    if (system.has_run()) noise = std::max(noise, system.loss().range());
  }
  return noise;
}

inline std::string loss_text(const SystemSummary& system) {
  return system.name() + support::format(": %.4f", system.loss().median);
}

/// Whether `less` ends below `more`, as the paper says it does.
inline Claim order_of(const Comparison& comparison, std::string text, std::string_view less, std::string_view more) {
  const SystemSummary *a = comparison.finished(less), *b = comparison.finished(more);
  if (a == nullptr || b == nullptr) return {std::move(text), "", "not run"};
  const double gain = b->loss().median - a->loss().median;
  return {std::move(text), loss_text(*a) + "; " + loss_text(*b),
          gain > noise(comparison)    ? "agrees"
          : gain < -noise(comparison) ? "contradicts the paper"
                                      : "no clear difference"};
}

inline Claim speed_up_claim(const Comparison& comparison) {
  Claim claim{
      "MoE-Mamba comes to plain Mamba's final loss in 2.2 times fewer steps (first version; 1.76 and 2.35 times at "
      "two sizes in the second)",
      "", "not run"};
  const SystemSummary* mixture = comparison.finished("moe-mamba");
  if (mixture == nullptr || mixture->speed_ups().empty()) return claim;
  const auto gain = mixture->speed_up();
  claim.here = gain ? support::format("%.2f times, median of %zu", *gain, mixture->speed_ups().size()) +
                          (mixture->speed_ups().size() == 1 ? " seed" : " seeds")
                    : "it does not come to that loss";
  claim.verdict = !gain || *gain < 1 ? "contradicts the paper"
                  : *gain >= 1.76    ? "agrees"
                                     : "agrees, with a smaller gain";
  return claim;
}

inline Claim expert_claim(const Comparison& comparison) {
  Claim claim{"more experts give a lower loss, and from 4 to 8 on a lower one than plain Mamba's", "", "not run"};
  std::vector<std::pair<Index, double>> losses;
  for (const SystemSummary& system : comparison.systems()) {
    const auto experts = expert_count(system.key);
    if (experts && system.has_run()) losses.emplace_back(*experts, system.loss().median);
  }
  if (losses.size() < 2 || !comparison.plain().has_run()) return claim;
  std::sort(losses.begin(), losses.end());
  const double margin = noise(comparison), plain = comparison.plain().loss().median;
  bool falls = true;
  for (std::size_t i = 1; i < losses.size(); ++i) falls = falls && losses[i].second < losses[i - 1].second + margin;
  std::optional<Index> from;  // the least number from which on all are below plain Mamba
  for (auto each = losses.rbegin(); each != losses.rend() && each->second < plain; ++each) from = each->first;
  const auto text = [](const std::pair<Index, double>& each) {
    return support::format("%lld expert%s: %.4f; ", static_cast<long long>(each.first), each.first == 1 ? "" : "s",
                           each.second);
  };
  claim.here =
      text(losses.front()) + text(losses.back()) +
      (from ? support::format("below plain Mamba from %lld on, of the numbers tried", static_cast<long long>(*from))
            : "none is below plain Mamba");
  const bool less = losses.back().second < losses.front().second - margin;
  claim.verdict = !less || !from ? "contradicts the paper" : falls ? "agrees" : "agrees but for single numbers";
  return claim;
}

/// How many of the systems whose keys begin and end like this are below plain Mamba.
inline Claim inner_claim(const Comparison& comparison, std::string text, const std::string& begin,
                         const std::string& end, bool below) {
  int run = 0, lower = 0;
  if (!comparison.plain().has_run()) return {std::move(text), "", "not run"};
  for (const SystemSummary& system : comparison.systems()) {
    if (!system.key.starts_with(begin) || !system.key.ends_with(end) || !system.has_run()) continue;
    if (below && std::count(system.key.begin(), system.key.end(), '-') > 2) continue;  // more than one projection
    ++run;
    lower += system.loss().median < comparison.plain().loss().median;
  }
  if (run == 0) return {std::move(text), "", "not run"};
  const int as_said = below ? lower : run - lower;
  return {std::move(text), support::format("%d of %d below plain Mamba", lower, run),
          as_said == run ? "agrees"
          : as_said == 0 ? "contradicts the paper"
                         : "agrees in part"};
}

inline Claim accuracy_claim(const Comparison& comparison) {
  Claim claim{"MoE-Mamba has the lower loss but Transformer-MoE the higher top-1 accuracy", "", "not run"};
  const SystemSummary *mamba = comparison.finished("moe-mamba"), *transformer = comparison.finished("transformer-moe");
  if (mamba == nullptr || transformer == nullptr) return claim;
  const auto a = mamba->accuracy(), b = transformer->accuracy();
  if (!a || !b) return claim;
  claim.here = support::format("MoE-Mamba %.2f %%, Transformer-MoE %.2f %%", 100 * a->median, 100 * b->median);
  claim.verdict = b->median > a->median ? "agrees" : "contradicts the paper";
  return claim;
}

}  // namespace detail

inline std::vector<Claim> claims_of(const Comparison& comparison) {
  using detail::order_of;
  return {
      detail::speed_up_claim(comparison),
      order_of(comparison, "a dense feed-forward layer in place of experts is worse than plain Mamba", "mamba",
               "mamba-mlp"),
      order_of(comparison, "MoE-Mamba ends below Transformer-MoE", "moe-mamba", "transformer-moe"),
      order_of(comparison, "plain Mamba ends below the Transformer", "mamba", "transformer"),
      order_of(comparison, "the parallel form is worse than the sequential one", "moe-mamba", "parallel"),
      detail::expert_claim(comparison),
      order_of(comparison,
               "with fewer parameters in Mamba (1 : 5) than in experts it is worse than with as many (3 : 3)",
               "moe-mamba", "share-1-5"),
      detail::inner_claim(comparison, "experts in place of projections in every layer are worse than plain Mamba",
                          "inner-", "-every", false),
      detail::inner_claim(comparison,
                          "in every other layer, those of one projection are slightly better than plain Mamba",
                          "inner-", "-other", true),
      detail::accuracy_claim(comparison),
  };
}

/// Claims beside what was found, in nats per byte; those without runs only if `all`. Empty if there are none.
inline std::string claims_table(const Comparison& comparison, bool all) {
  support::HtmlTable table({"the paper's claim", "here", ""}, 0);
  bool any = false;
  for (const Claim& claim : claims_of(comparison)) {
    const std::string text = support::escaped(claim.claim), verdict = support::escaped(claim.verdict);
    any = any || all || !claim.here.empty();
    if (!claim.here.empty()) {
      table.row({text, support::escaped(claim.here),
                 claim.verdict.starts_with("contradicts") ? "<b>" + verdict + "</b>" : verdict});
    } else if (all) {
      table.row_without({text}, verdict);
    }
  }
  return any ? table.html() : "";
}

}  // namespace paper
