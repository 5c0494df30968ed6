#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "moe_mamba/text/utf8.hpp"

/// Character classes of regular expressions.
namespace moe_mamba::inline v0_2::detail {

inline constexpr char32_t last_character = 0x10ffff;

/// A set of code points, which may include invalid bytes as well: complements do.
class CharacterSet {
 public:
  struct Range {
    char32_t first, last;
  };

  CharacterSet() = default;
  explicit CharacterSet(std::vector<Range> ranges, bool bytes = false) : ranges_(std::move(ranges)), bytes_(bytes) {
    std::sort(ranges_.begin(), ranges_.end(), [](Range a, Range b) { return a.first < b.first; });
    std::size_t count = 0;  // of merged ranges
    for (const Range range : ranges_) {
      if (count > 0 && range.first <= ranges_[count - 1].last + 1) {
        ranges_[count - 1].last = std::max(ranges_[count - 1].last, range.last);
      } else {
        ranges_[count++] = range;
      }
    }
    ranges_.resize(count);
    for (char32_t c = 0; c < 128; ++c) ascii_[c / 64] |= std::uint64_t{find(c)} << (c % 64);
  }
  static CharacterSet of(char32_t first, char32_t last) { return CharacterSet({{first, last}}); }
  static CharacterSet of(char32_t c) { return of(c, c); }
  static CharacterSet all() { return CharacterSet({{0, last_character}}, true); }

  const std::vector<Range>& ranges() const { return ranges_; }

  bool contains(char32_t c) const {
    if (c < 128) return (ascii_[c / 64] >> (c % 64) & 1) != 0;
    return c == no_character ? bytes_ : find(c);
  }

  friend CharacterSet operator~(const CharacterSet& set) {
    std::vector<Range> gaps;
    char32_t next = 0;
    for (const Range range : set.ranges_) {
      if (range.first > next) gaps.push_back({next, range.first - 1});
      next = range.last + 1;
    }
    if (next <= last_character) gaps.push_back({next, last_character});
    return CharacterSet(std::move(gaps), !set.bytes_);
  }
  friend CharacterSet operator|(const CharacterSet& a, const CharacterSet& b) {
    std::vector<Range> ranges = a.ranges_;
    ranges.insert(ranges.end(), b.ranges_.begin(), b.ranges_.end());
    return CharacterSet(std::move(ranges), a.bytes_ || b.bytes_);
  }
  friend CharacterSet operator&(const CharacterSet& a, const CharacterSet& b) { return ~(~a | ~b); }

 private:
  bool find(char32_t c) const {
    const auto next = std::upper_bound(ranges_.begin(), ranges_.end(), c,
                                       [](char32_t character, Range range) { return character < range.first; });
    return next != ranges_.begin() && c <= std::prev(next)->last;
  }

  std::vector<Range> ranges_;  // sorted, neither overlapping nor adjacent
  std::array<std::uint64_t, 2> ascii_{};
  bool bytes_ = false;
};

}  // namespace moe_mamba::inline v0_2::detail
