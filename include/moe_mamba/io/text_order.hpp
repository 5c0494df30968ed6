#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string_view>
#include <vector>

#include "moe_mamba/core/standard.hpp"

namespace moe_mamba::detail {

/// Seven bytes of a text as a number that orders as they do: the bytes, then how many they are, eight where more follow.
inline std::uint64_t ordered_bytes(std::string_view text, std::size_t begin) {
  constexpr std::size_t most = 7;
  const std::size_t left = text.size() - begin;
  std::uint64_t number = 0;
  for (std::size_t i = 0; i < most; ++i) {
    number = number << 8 | (i < left ? static_cast<unsigned char>(text[begin + i]) : 0u);
  }
  return number << 8 | std::min(left, most + 1);
}

/// The places 0 to count - 1 in the order of the bytes of text(place), a std::string_view, and equal texts in the order of their places.
///
/// Comparing texts where they lie takes a visit to memory each time, and the time for many of them grows faster than their
/// number as soon as the caches no longer hold them. So seven bytes of each text are sorted where they lie side by side, then the
/// next seven of those that agree in these.
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
    std::uint32_t place;
    bool operator<(const Item& other) const { return bytes != other.bytes ? bytes < other.bytes : place < other.place; }
  };
  struct Range {
    std::size_t begin, end, depth;  // agree in the first `depth` bytes
  };
  std::vector<Item> items(count);
  for (const std::uint32_t place : order) items[place].place = place;
  std::vector<Range> ranges{{0, count, 0}};
  while (!ranges.empty()) {
    const Range range = ranges.back();
    ranges.pop_back();
    const auto begin = items.begin() + static_cast<std::ptrdiff_t>(range.begin);
    const auto end = items.begin() + static_cast<std::ptrdiff_t>(range.end);
    for (auto item = begin; item != end; ++item) item->bytes = ordered_bytes(text(item->place), range.depth);
    if (!std::is_sorted(begin, end)) std::sort(begin, end);
    for (std::size_t first = range.begin, last; first < range.end; first = last) {
      const std::uint64_t bytes = items[first].bytes;
      for (last = first + 1; last < range.end && items[last].bytes == bytes;) ++last;
      if (last - first > 1 && (bytes & 0xff) > 7) ranges.push_back({first, last, range.depth + 7});
    }
  }
  std::transform(items.begin(), items.end(), order.begin(), [](const Item& item) { return item.place; });
  return order;
}

}  // namespace moe_mamba::detail
