#include "moe_mamba/tokenizers/tables.hpp"

#include <random>
#include <string>
#include <utility>

#include "support/catch.hpp"

using namespace moe_mamba;

TEST_CASE("A table constructed from all strings finds the same as one filled string by string", "[tokenizers]") {
  std::mt19937 random(1);
  const auto random_text = [&](std::size_t most) {
    std::string text(random() % (most + 1), '\0');
    for (char& byte : text) byte = static_cast<char>(random() % 3);
    return text;
  };
  int with_repeats = 0;
  for (const std::size_t count : {0u, 1u, 7u, 8u, 9u, 15u, 16u, 17u, 100u, 3000u}) {
    for (int round = 0; round < 20; ++round) {
      detail::ByteStrings strings;
      detail::StringTable one_by_one;
      std::string repeated;
      bool repeats = false;
      while (strings.ends.size() < count) {
        const std::string text = random_text(12);
        if (!one_by_one.insert(text).second) {
          if (round % 4 != 0 || random() % 8 != 0) continue;
          if (!std::exchange(repeats, true)) repeated = text;
        }
        strings.push_back(text);
      }
      INFO(count << " strings, round " << round << (repeats ? ", one twice" : ""));
      if (repeats) {
        bool thrown = false;
        try {
          detail::StringTable table(strings);
        } catch (const detail::DuplicateString& error) {
          thrown = error.text == repeated;
        }
        REQUIRE(thrown);
        ++with_repeats;
        continue;
      }
      detail::StringTable table(strings);
      for (int more = 0; more < 50; ++more) {
        const std::string text = random_text(12);
        REQUIRE(table.find(text) == one_by_one.find(text));
        REQUIRE(table.insert(text) == one_by_one.insert(text));
      }
      detail::ByteStrings texts;
      for (int i = 0; i < 200; ++i) texts.push_back(random_text(12));
      std::vector<std::uint32_t> numbers;
      table.find_all(texts, numbers);
      REQUIRE(numbers.size() == texts.size());
      for (std::size_t i = 0; i < texts.size(); ++i) REQUIRE(numbers[i] == one_by_one.find(texts[i]));
      REQUIRE(table.size() == one_by_one.size());
      for (std::uint32_t i = 0; i < table.size(); ++i) {
        REQUIRE(table[i] == one_by_one[i]);
        REQUIRE(table.find(one_by_one[i]) == i);
      }
    }
  }
  REQUIRE(with_repeats > 5);
}

TEST_CASE("A table of pairs set at once finds what one set pair by pair finds", "[tokenizers]") {
  std::mt19937 random(2);
  for (const std::size_t count : {0u, 1u, 8u, 9u, 63u, 64u, 65u, 3000u}) {
    INFO(count << " pairs, some of them twice");
    std::vector<detail::PairTable::Entry> entries;
    detail::PairTable one_by_one, grown, reserved(count);
    for (std::uint32_t i = 0; i < count; ++i) {
      const auto left = static_cast<std::uint32_t>(random() % 60), right = static_cast<std::uint32_t>(random() % 60);
      entries.push_back({left, right, {i, i + 1}});
      one_by_one.set(left, right, {i, i + 1});
    }
    grown.set_all(entries);
    reserved.set_all(entries);
    for (std::uint32_t left = 0; left < 60; ++left) {
      for (std::uint32_t right = 0; right < 60; ++right) {
        const auto expected = one_by_one.find(left, right);
        for (const detail::PairTable* table : {&grown, &reserved}) {
          REQUIRE(table->find(left, right).first == expected.first);
          REQUIRE(table->find(left, right).second == expected.second);
        }
      }
    }
  }
}
