#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "moe_mamba/tokenizers/character_properties.hpp"
#include "moe_mamba/tokenizers/split_behavior.hpp"

namespace moe_mamba::inline v0_2::detail {

/// Splits text where the script changes. Hiragana, Katakana and the prolonged sound mark count as Han; spaces, and
/// characters without a script, belong to the segment before them.
class ScriptSplitter {
 public:
  ScriptSplitter() {
    for (std::size_t i = 0; i < script_tables.size(); ++i) {
      const std::string_view name = script_tables[i].name;
      const bool is_han = name == "Hiragana" || name == "Katakana" || name == "Han";
      const auto script = static_cast<std::uint32_t>(is_han ? han : i);
      const CharacterSet characters = parse_ranges(script_tables[i].ranges);
      for (const CharacterSet::Range range : characters.ranges()) {
        ranges_.push_back({range.first, range.last, script});
      }
    }
    std::sort(ranges_.begin(), ranges_.end(), [](const Range& a, const Range& b) { return a.first < b.first; });
  }

  std::vector<Segment> operator()(std::string_view text) const {
    std::vector<Segment> segments;
    std::uint32_t last = none;
    for (std::size_t at = 0; at < text.size();) {
      const Utf8Unit unit = utf8_unit(text, at);
      const std::uint32_t script = script_of(unit.code);
      if (script != none && script != last) {
        if (!segments.empty()) segments.back().end = at;
        segments.push_back({at, text.size(), false});
        last = script;
      }
      at += unit.bytes;
    }
    return segments;
  }

 private:
  static constexpr std::uint32_t none = 0xffffffff, han = 1000;
  struct Range {
    char32_t first, last;
    std::uint32_t script;
  };

  std::uint32_t script_of(char32_t c) const {
    if (c == ' ') return none;
    if (c == 0x30fc) return han;
    const auto next = std::upper_bound(ranges_.begin(), ranges_.end(), c,
                                       [](char32_t character, const Range& range) { return character < range.first; });
    return next == ranges_.begin() || c > std::prev(next)->last ? none : std::prev(next)->script;
  }

  std::vector<Range> ranges_;
};

}  // namespace moe_mamba::inline v0_2::detail
