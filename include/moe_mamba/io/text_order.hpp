#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string_view>
#include <vector>

#include "moe_mamba/core/standard.hpp"

namespace moe_mamba::inline v0_2::detail {

/// Seven bytes of a text from `begin` on as a number with the same order: the bytes, then their count, or eight if more
/// follow.
inline std::uint64_t ordered_bytes(std::string_view text, std::size_t begin) {
  constexpr std::size_t most = 7;
  const std::size_t left = text.size() - begin;
  std::uint64_t number = 0;
  for (std::size_t i = 0; i < most; ++i) {
    number = number << 8 | (i < left ? static_cast<unsigned char>(text[begin + i]) : 0u);
  }
  return number << 8 | std::min(left, most + 1);
}

/// The indices 0 to count - 1, stably sorted by the bytes of text(index), a std::string_view.
///
/// Comparing texts through pointers costs a cache miss per comparison once they no longer fit into the caches, so the
/// time grows faster than their number. Instead, seven bytes of each text are copied into a contiguous array of keys
/// and sorted there; then the next seven bytes of those that compare equal, and so on. Where seven bytes tell none of them
/// apart, all that they have in common is skipped at once.
template <class Text>
std::vector<std::uint32_t> order_of(std::size_t count, const Text& text) {
  std::vector<std::uint32_t> order(count);
  std::iota(order.begin(), order.end(), 0u);
  if (constexpr std::size_t few = 16; count <= few) {
    std::sort(order.begin(), order.end(), [&](auto a, auto b) {
      const int difference = text(a).compare(text(b));
      return difference != 0 ? difference < 0 : a < b;
    });
    return order;
  }

  struct Item {
    std::uint64_t bytes;
    std::uint32_t index;
    bool operator<(const Item& other) const { return bytes != other.bytes ? bytes < other.bytes : index < other.index; }
  };
  struct Range {
    std::size_t begin, end, depth;  // items whose first `depth` bytes are equal
  };
  std::vector<Item> items(count);
  // The first byte from `begin` on in which some of these texts differ, or that is the end of one of them.
  const auto end_of_common = [&](std::span<const Item> same, std::size_t begin) {
    std::string_view common = text(same.front().index).substr(begin);
    for (const Item& item : same.subspan(1)) {
      const std::string_view other = text(item.index).substr(begin);
      const auto end = std::mismatch(common.begin(), common.end(), other.begin(), other.end()).first;
      common = common.substr(0, static_cast<std::size_t>(end - common.begin()));
    }
    return begin + common.size();
  };
  for (const std::uint32_t index : order) items[index].index = index;
  std::vector<Range> ranges{{0, count, 0}};
  while (!ranges.empty()) {
    const Range range = ranges.back();
    ranges.pop_back();
    const auto begin = items.begin() + static_cast<std::ptrdiff_t>(range.begin);
    const auto end = items.begin() + static_cast<std::ptrdiff_t>(range.end);
    for (auto item = begin; item != end; ++item) item->bytes = ordered_bytes(text(item->index), range.depth);
    if (!std::is_sorted(begin, end)) std::sort(begin, end);
    for (std::size_t first = range.begin, last; first < range.end; first = last) {
      const std::uint64_t bytes = items[first].bytes;
      for (last = first + 1; last < range.end && items[last].bytes == bytes;) ++last;
      if (last - first < 2 || (bytes & 0xff) <= 7) continue;
      std::size_t depth = range.depth + 7;
      if (first == range.begin && last == range.end) depth = end_of_common({items.data() + first, last - first}, depth);
      ranges.push_back({first, last, depth});
    }
  }
  std::transform(items.begin(), items.end(), order.begin(), [](const Item& item) { return item.index; });
  return order;
}

}  // namespace moe_mamba::inline v0_2::detail
