#pragma once

#include <array>
#include <cctype>
#include <span>
#include <string>
#include <vector>

#include "moe_mamba/model/model.hpp"
#include "support/terminal.hpp"

/// Which expert meets which kind of byte.
namespace paper {

inline constexpr std::array<const char*, 6> byte_kinds = {"lower case", "upper case", "digit",
                                                          "space",      "line end",   "punctuation"};

/// An index into byte_kinds; bytes beyond ASCII count as punctuation.
inline std::size_t byte_kind(unsigned char byte) {
  if (byte >= 'a' && byte <= 'z') return 0;
  if (byte >= 'A' && byte <= 'Z') return 1;
  if (byte >= '0' && byte <= '9') return 2;
  if (byte == ' ' || byte == '\t') return 3;
  if (byte == '\n' || byte == '\r') return 4;
  return 5;
}

/// Reads the beginning of a text step by step and counts each router's choices by the kind of the byte just read, as CSV:
/// router, expert, kind, count. Empty for a definition without routers.
template <class Definition, class S, class Backend>
std::string specialisation(const moe_mamba::Model<Definition, S, Backend>& model, Backend& device,
                           std::span<const unsigned char> text) {
  constexpr std::size_t steps = 16384;
  using Compute = moe_mamba::compute_t<S>;
  moe_mamba::Workspace<Definition, S, Backend> workspace(device, {1, 1});
  moe_mamba::States<Definition, S, typename Backend::Memory> state(1);
  std::vector<Compute> logits(static_cast<std::size_t>(Definition::vocabulary));
  std::vector<std::vector<std::array<long long, byte_kinds.size()>>> counts;  // by router, expert and kind
  for (const unsigned char byte : text.first(std::min(text.size(), steps))) {
    const moe_mamba::Token token = byte;
    model.step(workspace, state, std::span(&token, 1), std::span(logits));
    std::size_t router = 0;
    workspace.visit_routers([&](const moe_mamba::RouterReport& report) {
      if (counts.size() <= router) counts.emplace_back(report.load.size());
      for (std::size_t expert = 0; expert < report.load.size(); ++expert) {
        counts[router][expert][byte_kind(byte)] += report.load[expert] > 0;
      }
      ++router;
    });
    if (router == 0) return "";
  }
  std::string csv = "router,expert,kind,count\n";
  for (std::size_t router = 0; router < counts.size(); ++router) {
    for (std::size_t expert = 0; expert < counts[router].size(); ++expert) {
      for (std::size_t kind = 0; kind < byte_kinds.size(); ++kind) {
        csv += support::format("%zu,%zu,%s,%lld\n", router, expert, byte_kinds[kind], counts[router][expert][kind]);
      }
    }
  }
  return csv;
}

}  // namespace paper
