#include "moe_mamba/tokenizers/merges.hpp"

#include <random>
#include <set>
#include <utility>

#include "support/allocations.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;

namespace {

/// The definition of byte-pair encoding, step by step.
void apply_one_by_one(const detail::Merges& merges, std::vector<Token>& symbols) {
  for (;;) {
    std::size_t best = symbols.size();
    detail::PairTable::Value found;
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto merge = merges.find(symbols[i], symbols[i + 1]);
      if (merge.first < found.first) {
        found = merge;
        best = i;
      }
    }
    if (best == symbols.size()) return;
    symbols[best] = static_cast<Token>(found.second);
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

}  // namespace

TEST_CASE("Merges are applied by rank and then from left to right", "[tokenizers]") {
  std::mt19937 random(1);
  std::vector<std::uint32_t> links;
  detail::PairQueue queue;
  std::size_t merged = 0, all = 0;
  for (int round = 0; round < 1500; ++round) {
    // Up to 14 tokens, each the result of any number of merges, of any rank: later merges may have a lower rank.
    const std::size_t letters = 1 + random() % 3, tokens = letters + random() % 12;
    const auto any_token = [&] { return static_cast<std::uint32_t>(random() % tokens); };
    const std::uint32_t ranks = random() % 2 == 0 ? 64 : 8192;  // of several lists, or of a single one
    std::vector<detail::PairTable::Entry> entries;
    std::set<std::uint32_t> used;
    for (auto count = random() % 60; count > 0; --count) {
      const auto rank = static_cast<std::uint32_t>(random() % 64 * (ranks / 64));
      if (used.insert(rank).second) entries.push_back({any_token(), any_token(), {rank, any_token()}});
    }
    detail::Merges merges;
    merges.add(entries);

    std::vector<Token> symbols(random() % (round % 10 == 0 ? 600 : 150));
    const std::size_t period = random() % 2 == 0 ? 1 + random() % 4 : symbols.size();
    for (std::size_t i = 0; i < symbols.size(); ++i) {
      symbols[i] = i < period ? static_cast<Token>(random() % letters) : symbols[i - period];
    }
    std::vector<Token> expected = symbols;
    apply_one_by_one(merges, expected);
    all += symbols.size();
    merged += symbols.size() - expected.size();
    merges.apply(symbols, links, queue);
    REQUIRE(symbols == expected);
  }
  CHECK(merged > all / 4);
}

TEST_CASE("A queue of pairs gives the lowest rank first, then the leftmost pair", "[tokenizers]") {
  using Pair = detail::PairQueue::Pair;
  std::mt19937 random(2);
  detail::PairQueue queue;
  std::size_t removed = 0;
  for (int round = 0; round < 300; ++round) {
    queue.start(random() % 3000);  // whatever an earlier round has left
    std::set<std::pair<std::uint32_t, std::uint32_t>> expected;
    const auto ranks = static_cast<std::uint32_t>(1 + random() % (round % 2 == 0 ? 5 : 5000));
    std::uint32_t at = 0;
    for (auto count = random() % 1000; count > 0; --count) {
      if (random() % 3 != 0) {
        at = random() % 8 == 0 ? static_cast<std::uint32_t>(random() % 3000) : at + 1;
        const Pair pair{static_cast<std::uint32_t>(random() % ranks), at};
        if (expected.emplace(pair.rank, pair.at).second) queue.push(pair);
        continue;
      }
      REQUIRE(queue.empty() == expected.empty());
      if (expected.empty()) continue;
      const Pair pair = queue.pop();
      REQUIRE(std::pair(pair.rank, pair.at) == *expected.begin());
      expected.erase(expected.begin());
      ++removed;
    }
  }
  CHECK(removed > 10'000);
}

TEST_CASE("Memory for merges serves the next word after it ran out", "[tokenizers]") {
  detail::Merges merges;
  merges.add(std::vector<detail::PairTable::Entry>{{0, 0, {9, 2}}, {0, 1, {1, 1}}, {1, 1, {7, 0}}, {2, 2, {3, 1}}});
  std::mt19937 random(3);
  std::vector<Token> word(500);
  for (Token& symbol : word) symbol = static_cast<Token>(random() % 2);
  std::vector<Token> expected = word;
  apply_one_by_one(merges, expected);
  struct Memory {
    std::vector<Token> symbols;
    std::vector<std::uint32_t> links;
    detail::PairQueue queue;
  };
  const auto apply = [&](Memory& memory) { merges.apply(memory.symbols, memory.links, memory.queue); };
  const long failures = test::fail_each_allocation(
      [&] {
        return Memory{word, {}, {}};
      },
      apply,
      [&](Memory& memory) {
        memory.symbols = word;
        apply(memory);
        REQUIRE(memory.symbols == expected);
      });
  CHECK(failures > 10);
}
