// One word cache in two simultaneous calls: the second throws before any work, and the first is unaffected.
#include <atomic>
#include <stdexcept>
#include <thread>

#include "support/catch.hpp"
#include "tokenizers/fixtures.hpp"

using namespace moe_mamba;

TEST_CASE("A call with a word cache that another call is using throws, and no token is wrong", "[tokenizers]") {
  const BpeTokenizer tokenizer = test::load_fixture("llama3");
  WordCache cache;
  std::string message;
  std::atomic<bool> refused{false};
  std::atomic<int> wrong{0};
  const auto repeat = [&](int first) {
    for (int i = first; i < 200'000 && !refused; i += 2) {
      // Words that the cache has not seen make it grow.
      const std::string text = "Vierzehn W\u00f6rter, w" + std::to_string(i) + "x and Donaudampfschifffahrt";
      try {
        if (tokenizer.encode(text, cache) != tokenizer.encode(text)) ++wrong;
      } catch (const std::logic_error& error) {
        if (!refused.exchange(true)) message = error.what();
      }
    }
  };
  std::thread other([&] { repeat(1); });
  repeat(0);
  other.join();
  CHECK(wrong == 0);
  CHECK(
      message ==
      "the word cache is in the middle of another call; allowed: one call at a time, so give each thread a word cache "
      "of its own");
  // The refused call had no effect.
  CHECK(tokenizer.encode("Vierzehn", cache) == tokenizer.encode("Vierzehn"));
}

TEST_CASE("A call that throws ends, and copies of a cache are free", "[tokenizers]") {
  const BpeTokenizer tokenizer =
      test::parse_tokenizer(R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}})");
  WordCache cache;
  for (int round = 0; round < 3; ++round) {
    CHECK_THROWS_AS(tokenizer.encode("ab", cache), std::invalid_argument);  // no token for b
    CHECK(tokenizer.encode("a", cache) == std::vector<Token>{0});
  }
  WordCache copy = cache;
  const BpeTokenizer other = test::load_fixture("gpt2");
  CHECK(other.encode("two words", copy) == other.encode("two words"));
  CHECK(tokenizer.encode("aa", cache) == std::vector<Token>{0, 0});
}
