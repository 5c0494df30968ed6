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
      REQUIRE(table.size() == one_by_one.size());
      for (std::uint32_t i = 0; i < table.size(); ++i) {
        REQUIRE(table[i] == one_by_one[i]);
        REQUIRE(table.find(one_by_one[i]) == i);
      }
    }
  }
  REQUIRE(with_repeats > 5);
}
