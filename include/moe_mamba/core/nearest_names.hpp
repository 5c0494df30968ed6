#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>

#include "moe_mamba/core/standard.hpp"

/// Suggestions for messages about an unknown name.
namespace moe_mamba::inline v0_2::detail {

/// The number of characters to insert, delete or replace to turn one name into another (Levenshtein 1966), of names truncated
/// to 100 characters.
inline std::size_t edit_distance(std::string_view a, std::string_view b) {
  constexpr std::size_t longest = 100;
  a = a.substr(0, longest);
  b = b.substr(0, longest);
  std::array<std::size_t, longest + 1> row{};  // distances of a's first i characters to b's first 0, 1, …
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t changed = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = std::exchange(row[j + 1], std::min({row[j + 1] + 1, row[j] + 1, changed}));
    }
  }
  return row[b.size()];
}

/// The names most similar to a given one; one that contains it counts as similar. Considers only the first thousands, so that
/// no file can make it slow.
class NearestNames {
 public:
  explicit NearestNames(std::string_view wanted) : wanted_(wanted) {}

  void offer(std::string_view name) {
    if (++offered_ > 4096) return;
    const bool is_part = name.find(wanted_) != name.npos;
    const std::size_t distance = is_part ? 0 : edit_distance(wanted_, name);
    for (std::size_t i = 0; i < nearest_.size(); ++i) {
      if (i < kept_ && nearest_[i].distance <= distance) continue;
      std::move_backward(nearest_.begin() + static_cast<std::ptrdiff_t>(i), nearest_.end() - 1, nearest_.end());
      nearest_[i] = {std::string(name), distance};
      kept_ = std::min(kept_ + 1, nearest_.size());
      return;
    }
  }

  /// Up to three of them, the nearest first: "a, b, c", each converted by `spell`.
  template <class Spell>
  std::string text(const Spell& spell) const {
    std::string all;
    for (std::size_t i = 0; i < kept_; ++i) all += (i == 0 ? "" : ", ") + spell(nearest_[i].name);
    return all;
  }

 private:
  struct Name {
    std::string name;
    std::size_t distance = 0;
  };
  std::string_view wanted_;
  std::array<Name, 3> nearest_;
  std::size_t kept_ = 0, offered_ = 0;
};

}  // namespace moe_mamba::inline v0_2::detail
