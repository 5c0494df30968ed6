#pragma once

#include <compare>
#include <cstddef>
#include <stdexcept>
#include <vector>

#include "moe_mamba/blocks/layer.hpp"
#include "moe_mamba/core/error.hpp"
#include "moe_mamba/ops/router.hpp"

namespace moe_mamba::inline v0_2 {

/// The offsets of the selection biases of a definition's routers among its parameters, and of their experts' loads in a
/// workspace's report; empty if the definition has no such bias. Throws std::logic_error for a user-defined layer whose
/// visit_routers() does not report them in the order of its parameters.
template <class Definition>
std::vector<SelectionBiasPlace> selection_bias_places() {
  std::vector<SelectionBiasPlace> places;
  Definition::visit_parameters([&](const Parameter& parameter) {
    if (parameter.kind != ParameterKind::selection_bias) return;
    places.push_back({.bias = parameter.offset, .load = 0, .experts = static_cast<int>(parameter.size())});
  });
  if (places.empty()) return places;

  const std::vector<double> report(static_cast<std::size_t>(Definition::Body::report_size));
  std::size_t routers = 0;
  bool fits = true;
  Index layer = 0;
  Definition::Body::visit_routers(
      [&](const RouterReport& router) {
        if (!router.has_selection_bias) return;
        const auto before = [](const double* a, const double* b) {
          return std::is_lteq(std::compare_three_way()(a, b));
        };
        fits = fits && routers < places.size() &&
               router.load.size() == static_cast<std::size_t>(places[routers].experts) &&
               before(report.data(), router.load.data()) &&
               before(router.load.data() + router.load.size(), report.data() + report.size());
        if (fits) places[routers].load = router.load.data() - report.data();
        ++routers;
      },
      report.data(), layer);
  if (!fits || routers != places.size()) {
    detail::raise<std::logic_error>(
        "the definition has selection biases whose experts' loads are not reported; allowed: layers whose "
        "visit_routers() "
        "shows the reports of all routers, in the order of their parameters");
  }
  return places;
}

}  // namespace moe_mamba::inline v0_2
