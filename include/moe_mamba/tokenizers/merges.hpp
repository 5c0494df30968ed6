#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/tokenizers/tables.hpp"

/// The merges of byte-pair encoding, applied to a word: as long as two adjacent symbols form a merge, the merge with the
/// lowest rank is applied, the leftmost first.
namespace moe_mamba::inline v0_2::detail {

/// Maps pairs of tokens to the rank of their merge and the token that they merge to.
class Merges {
 public:
  using Entry = PairTable::Entry;

  /// Empty, with room for a number of merges.
  explicit Merges(std::size_t expected = 0) : table_(expected) {}

  /// Adds merges, each with the value (rank, token). A later merge of the same pair replaces an earlier one.
  void add(std::span<const Entry> merges) { table_.set_all(merges); }

  /// Size in memory.
  std::size_t bytes() const { return table_.bytes(); }

  /// (rank, token); both are PairTable::none if the pair is no merge.
  PairTable::Value find(Token left, Token right) const {
    return table_.find(static_cast<std::uint32_t>(left), static_cast<std::uint32_t>(right));
  }
  void prefetch(Token left, Token right) const {
    table_.prefetch(static_cast<std::uint32_t>(left), static_cast<std::uint32_t>(right));
  }

  /// Applies the merges to the symbols of a word.
  void apply(std::vector<Token>& symbols, std::vector<std::uint32_t>& links, std::vector<std::uint64_t>& queue) const;

 private:
  void apply_to_long(std::vector<Token>& symbols, std::vector<std::uint32_t>& links,
                     std::vector<std::uint64_t>& queue) const;

  PairTable table_;
};

/// A short word, whose merges are applied one by one. A linear search for the lowest rank is faster than a priority
/// queue. Each step prefetches what the next one looks up, so that the steps of several words can take turns instead of
/// waiting for memory.
class ShortWord {
 public:
  static constexpr std::size_t longest = 48;  // symbols

  void start(const Merges& merges, std::span<const Token> symbols) {
    count_ = symbols.size();
    std::copy(symbols.begin(), symbols.end(), symbols_.begin());
    await(merges, 0, pairs());
  }

  /// Applies one merge; false if there is none.
  bool step(const Merges& merges) {
    for (std::size_t i = first_new_; i < last_new_; ++i) {
      const PairTable::Value found = merges.find(symbols_[i], symbols_[i + 1]);
      merges_[i] = static_cast<std::uint64_t>(found.first) << 32 | found.second;
    }
    std::size_t best = 0;
    for (std::size_t i = 1; i < pairs(); ++i) best = merges_[i] < merges_[best] ? i : best;
    if (pairs() == 0 || merges_[best] >> 32 == PairTable::none) return false;
    symbols_[best] = static_cast<Token>(merges_[best] & 0xffffffff);
    for (std::size_t i = best + 1; i + 1 < count_; ++i) {
      symbols_[i] = symbols_[i + 1];
      merges_[i] = merges_[i + 1];
    }
    --count_;
    await(merges, best == 0 ? 0 : best - 1, std::min(best + 1, pairs()));
    return true;
  }

  std::span<const Token> symbols() const { return std::span(symbols_).first(count_); }

 private:
  std::size_t pairs() const { return count_ < 2 ? 0 : count_ - 1; }

  /// The next step looks up the pairs first to last - 1.
  void await(const Merges& merges, std::size_t first, std::size_t last) {
    first_new_ = first;
    last_new_ = last;
    for (std::size_t i = first; i < last; ++i) merges.prefetch(symbols_[i], symbols_[i + 1]);
  }

  std::size_t count_, first_new_, last_new_;
  std::array<Token, longest> symbols_;
  std::array<std::uint64_t, longest> merges_;  // of the pair that begins at each symbol: rank and token
};

inline void Merges::apply(std::vector<Token>& symbols, std::vector<std::uint32_t>& links,
                          std::vector<std::uint64_t>& queue) const {
  if (symbols.size() > ShortWord::longest) return apply_to_long(symbols, links, queue);
  ShortWord word;
  word.start(*this, symbols);
  while (word.step(*this)) {
  }
  symbols.assign(word.symbols().begin(), word.symbols().end());
}

/// For long words: a priority queue of pairs by rank and position, and the symbols as a linked list. Stale queue
/// entries are skipped.
inline void Merges::apply_to_long(std::vector<Token>& symbols, std::vector<std::uint32_t>& links,
                                  std::vector<std::uint64_t>& queue) const {
  constexpr std::uint32_t none = PairTable::none;
  const auto count = static_cast<std::uint32_t>(symbols.size());
  links.resize(std::size_t{2} * count);
  std::uint32_t *previous = links.data(), *next = links.data() + count;
  for (std::uint32_t i = 0; i < count; ++i) {
    previous[i] = i == 0 ? none : i - 1;
    next[i] = i + 1 == count ? none : i + 1;
  }
  queue.clear();
  const auto offer = [&](std::uint32_t at) {
    const std::uint32_t rank = find(symbols[at], symbols[next[at]]).first;
    if (rank == none) return false;
    queue.push_back(static_cast<std::uint64_t>(rank) << 32 | at);
    return true;
  };
  const auto later = [](std::uint64_t a, std::uint64_t b) { return a > b; };
  for (std::uint32_t i = 0; i + 1 < count; ++i) offer(i);
  std::make_heap(queue.begin(), queue.end(), later);
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), later);
    const std::uint64_t top = queue.back();
    queue.pop_back();
    const auto at = static_cast<std::uint32_t>(top);
    const std::uint32_t right = next[at];
    if (symbols[at] < 0 || right == none) continue;
    const PairTable::Value found = find(symbols[at], symbols[right]);
    if (found.first != top >> 32) continue;
    symbols[at] = static_cast<Token>(found.second);
    symbols[right] = -1;
    next[at] = next[right];
    if (next[at] != none) previous[next[at]] = at;
    if (previous[at] != none && offer(previous[at])) std::push_heap(queue.begin(), queue.end(), later);
    if (next[at] != none && offer(at)) std::push_heap(queue.begin(), queue.end(), later);
  }
  std::erase(symbols, -1);
}

}  // namespace moe_mamba::inline v0_2::detail
