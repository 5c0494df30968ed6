#pragma once

#include <string>
#include <vector>

#include "cpu_system.hpp"
#include "study.hpp"

/// Experts in place of projections inside Mamba, in both forms, at each projection. There are 24 experts a layer, or 48 in
/// every other one, as in the paper.
namespace paper {

template <bool Half, int Places>
constexpr int each = (Half ? 48 : 24) / Places;

/// Both forms with the given projections; `key` names them.
template <bool Half, class... Options>
void add_inner(std::vector<Entry>& entries, const std::string& key, const std::string& places) {
  const std::string layers = Half ? "every other layer" : "every layer", suffix = key + (Half ? "-other" : "-every");
  entries.push_back({cpu_system<Within<RoutedMamba<Width24, Half, Options...>, Width24::budget, 2>>(
                         "routed-" + suffix, "Routing Mamba, " + places + ", " + layers),
                     1, "mamba"});
  entries.push_back({cpu_system<Within<InnerMoe<Width24, Half, Options...>, Width24::budget, 2>>(
                         "inner-" + suffix, "Inner MoE, " + places + ", " + layers),
                     1, "mamba"});
}

/// All of them, in every layer or (`Half`) in every other one.
template <bool Half>
std::vector<Entry> inner_entries() {
  std::vector<Entry> entries;
  constexpr int one = each<Half, 1>, two = each<Half, 2>, three = each<Half, 3>;
  add_inner<Half, InputExperts<three>, GateExperts<three>, OutputExperts<three>>(entries, "all", "all projections");
  add_inner<Half, InputExperts<one>>(entries, "in", "input");
  add_inner<Half, GateExperts<one>>(entries, "gate", "gate");
  add_inner<Half, OutputExperts<one>>(entries, "out", "output");
  add_inner<Half, InputExperts<two>, GateExperts<two>>(entries, "in-gate", "input and gate");
  add_inner<Half, InputExperts<two>, OutputExperts<two>>(entries, "in-out", "input and output");
  add_inner<Half, GateExperts<two>, OutputExperts<two>>(entries, "gate-out", "gate and output");
  return entries;
}

}  // namespace paper
