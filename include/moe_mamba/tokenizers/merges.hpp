#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/tokenizers/tables.hpp"

/// The merges of byte-pair encoding, applied to a word: as long as two adjacent symbols form a merge, the merge with the
/// lowest rank is applied, the leftmost first.
namespace moe_mamba::inline v0_2::detail {

/// A priority queue of pairs of adjacent symbols: the lowest rank first, then the leftmost. It is a heap in which pairs
/// of one rank that are added from left to right, as nearly all are, take a single place, and wait in a list for it.
/// Memory is kept for the next word.
class PairQueue {
 public:
  /// `at` is the position of the left symbol.
  struct Pair {
    std::uint32_t rank, at;
  };

  /// Removes all pairs, those left by a call that ran out of memory too, and prepares for a word.
  void start(std::size_t symbols) {
    lists_.assign(std::bit_ceil(std::clamp<std::size_t>(symbols, 1, most_lists)), List());
    nodes_.clear();
    free_ = none;
    heap_.clear();
  }

  bool empty() const { return heap_.empty(); }

  /// A pair that is added again may be removed once or several times.
  void push(Pair pair) {
    List& list = list_of(pair.rank);
    if (list.first == none) {
      const std::uint32_t added = new_node(pair.at);
      list = {pair.rank, added, added};
    } else if (list.rank == pair.rank && nodes_[list.last].at <= pair.at) {
      if (nodes_[list.last].at == pair.at) return;
      const std::uint32_t added = new_node(pair.at);
      nodes_[list.last].next = added;
      list.last = added;
      return;
    }
    heap_.push_back(key_of(pair));
    std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
  }

  /// Removes the first pair; there must be one.
  Pair pop() {
    const std::uint64_t top = heap_.front();
    const Pair pair{static_cast<std::uint32_t>(top >> 32), static_cast<std::uint32_t>(top)};
    List& list = list_of(pair.rank);
    if (list.first == none || list.rank != pair.rank || nodes_[list.first].at != pair.at) {
      std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
      heap_.pop_back();
      return pair;
    }
    const std::uint32_t next = nodes_[list.first].next;
    nodes_[list.first].next = std::exchange(free_, list.first);
    list.first = next;
    if (next == none) {
      std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
      heap_.pop_back();
    } else {
      replace_top(key_of({pair.rank, nodes_[next].at}));
    }
    return pair;
  }

 private:
  static constexpr std::uint32_t none = PairTable::none;
  static constexpr std::size_t most_lists = 1024;
  struct Node {
    std::uint32_t at, next;
  };
  /// Pairs of one rank from left to right. The first is in the heap.
  struct List {
    std::uint32_t rank = none, first = none, last = none;
  };

  static std::uint64_t key_of(Pair pair) { return static_cast<std::uint64_t>(pair.rank) << 32 | pair.at; }

  /// The only list that may contain pairs of a rank. If it contains those of another one, the pairs go to the heap.
  List& list_of(std::uint32_t rank) { return lists_[rank & (lists_.size() - 1)]; }

  std::uint32_t new_node(std::uint32_t at) {
    if (free_ == none) {
      nodes_.push_back({at, none});
      return static_cast<std::uint32_t>(nodes_.size() - 1);
    }
    const std::uint32_t node = free_;
    free_ = nodes_[node].next;
    nodes_[node] = {at, none};
    return node;
  }

  void replace_top(std::uint64_t key) {
    const std::size_t size = heap_.size();
    if ((size > 1 && heap_[1] < key) || (size > 2 && heap_[2] < key)) {
      std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
      heap_.back() = key;
      std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
    } else {
      heap_.front() = key;
    }
  }

  std::vector<List> lists_;
  std::vector<Node> nodes_;
  std::uint32_t free_ = none;  // the first unused node
  std::vector<std::uint64_t> heap_;
};

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
  void apply(std::vector<Token>& symbols, std::vector<std::uint32_t>& links, PairQueue& queue) const;

 private:
  void apply_to_long(std::vector<Token>& symbols, std::vector<std::uint32_t>& links, PairQueue& queue) const;

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

inline void Merges::apply(std::vector<Token>& symbols, std::vector<std::uint32_t>& links, PairQueue& queue) const {
  if (symbols.size() > ShortWord::longest) return apply_to_long(symbols, links, queue);
  ShortWord word;
  word.start(*this, symbols);
  while (word.step(*this)) {
  }
  symbols.assign(word.symbols().begin(), word.symbols().end());
}

/// For long words: a priority queue of pairs, and the symbols as a linked list. Pairs in the queue whose symbols have
/// changed are skipped.
inline void Merges::apply_to_long(std::vector<Token>& symbols, std::vector<std::uint32_t>& links,
                                  PairQueue& queue) const {
  constexpr std::uint32_t none = PairTable::none;
  const auto count = static_cast<std::uint32_t>(symbols.size());
  links.resize(std::size_t{2} * count);
  std::uint32_t *previous = links.data(), *next = links.data() + count;
  for (std::uint32_t i = 0; i < count; ++i) {
    previous[i] = i == 0 ? none : i - 1;
    next[i] = i + 1 == count ? none : i + 1;
  }
  queue.start(count);
  const auto offer = [&](std::uint32_t at) {
    const std::uint32_t rank = find(symbols[at], symbols[next[at]]).first;
    if (rank != none) queue.push({rank, at});
  };
  for (std::uint32_t i = 0; i + 1 < count; ++i) offer(i);
  while (!queue.empty()) {
    const auto [rank, at] = queue.pop();
    const std::uint32_t right = next[at];
    if (symbols[at] < 0 || right == none) continue;
    const PairTable::Value found = find(symbols[at], symbols[right]);
    if (found.first != rank) continue;
    symbols[at] = static_cast<Token>(found.second);
    symbols[right] = -1;
    next[at] = next[right];
    if (next[at] != none) previous[next[at]] = at;
    if (previous[at] != none) offer(previous[at]);
    if (next[at] != none) offer(at);
  }
  std::erase(symbols, -1);
}

}  // namespace moe_mamba::inline v0_2::detail
