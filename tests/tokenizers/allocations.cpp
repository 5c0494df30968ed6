// Every allocation of every call fails once; afterwards its objects work as if the call had not been made.
#include "support/allocations.hpp"

#include "support/catch.hpp"
#include "tokenizers/fixtures.hpp"

using namespace moe_mamba;

namespace {

constexpr const char* kinds[] = {"llama2", "llama3", "neox", "added_llama", "metaspace_first"};
const std::string text =
    "Vierzehn W\u00f6rter stehen hier, <s> one two three four five six seven\n\n  eight 1234567 "
    "\U0001f600 e\u0301\u0323 Donaudampfschifffahrtsgesellschaftskapit\u00e4nsm\u00fctze";

}  // namespace

TEST_CASE("A word cache gives the same tokens after encode() ran out of memory", "[tokenizers]") {
  for (const char* kind : kinds) {
    INFO(kind);
    const BpeTokenizer tokenizer = test::load_fixture(kind);
    const auto expected = tokenizer.encode(text);
    const long failures =
        test::fail_each_allocation([] { return WordCache(); }, [&](WordCache& cache) { tokenizer.encode(text, cache); },
                                   [&](WordCache& cache) {
                                     REQUIRE(tokenizer.encode(text, cache) == expected);
                                     REQUIRE(tokenizer.encode(text, cache) == expected);
                                   });
    CHECK(failures > 20);

    // A cache that survives every failure in turn, while it grows.
    WordCache cache;
    for (long n = 1; n <= failures; ++n) {
      const std::string longer = text + " word" + std::to_string(n) + " and" + std::to_string(n * n);
      const auto all = tokenizer.encode(longer);
      try {
        const test::FailingAllocation failure(1 + n % 7);
        tokenizer.encode(longer, cache);
      } catch (const std::bad_alloc&) {
      }
      REQUIRE(tokenizer.encode(longer, cache) == all);
    }
  }
}

TEST_CASE("A word cache and a tokenizer that could not be copied are unchanged", "[tokenizers]") {
  const BpeTokenizer llama = test::load_fixture("llama2"), neox = test::load_fixture("neox");
  const auto neox_tokens = neox.encode(text);
  WordCache filled;
  llama.encode(text, filled);
  const auto used = [&] {
    WordCache cache;
    neox.encode(text, cache);
    return cache;
  };
  CHECK(test::fail_each_allocation(
            used, [&](WordCache& cache) { cache = filled; },
            [&](WordCache& cache) { REQUIRE(neox.encode(text, cache) == neox_tokens); }) > 3);
  CHECK(test::fail_each_allocation([&] { return neox; }, [&](BpeTokenizer& tokenizer) { tokenizer = llama; },
                                   [&](BpeTokenizer& tokenizer) {
                                     REQUIRE(tokenizer.encode(text) == neox_tokens);
                                     REQUIRE(tokenizer.decode(neox_tokens) == neox.decode(neox_tokens));
                                   }) > 9);
}

TEST_CASE("Decoding continues after running out of memory", "[tokenizers]") {
  for (const char* kind : kinds) {
    INFO(kind);
    const BpeTokenizer tokenizer = test::load_fixture(kind);
    const auto tokens = tokenizer.encode(text);
    const std::string expected = tokenizer.decode(tokens);
    long failures = test::fail_each_allocation([] { return 0; }, [&](int) { tokenizer.decode(tokens); },
                                               [&](int) { REQUIRE(tokenizer.decode(tokens) == expected); });

    BpeTokenizer::Decoding state = tokenizer.decoding();
    StreamDecoder stream(tokenizer);
    std::string appended, pushed;
    const auto until_it_succeeds = [&](const auto& call) {
      for (long n = 1;; ++n) {
        try {
          const test::FailingAllocation failure(n);
          return call();
        } catch (const std::bad_alloc&) {
          ++failures;
        }
      }
    };
    for (const Token token : tokens) {
      until_it_succeeds([&] { tokenizer.append(state, token, appended); });
      pushed += until_it_succeeds([&] { return stream.push(token); });
    }
    CHECK(appended == expected);
    CHECK(pushed + stream.finish() == expected);
    CHECK(failures > 3);
  }
}

TEST_CASE("A file is read, or std::bad_alloc is thrown", "[tokenizers]") {
  const std::string file =
      R"({"normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Prepend","prepend":"a"}]},)"
      R"("pre_tokenizer":{"type":"Split","pattern":{"String":"a long pattern of a few words"},"behavior":"Isolated",)"
      R"("invert":false},"added_tokens":[{"id":9,"content":"<a special token>","special":true}],)"
      R"("decoder":{"type":"Sequence","decoders":[{"type":"Fuse"}]},"post_processor":{"type":"TemplateProcessing",)"
      R"("single":[{"Sequence":{"id":"A"}},{"SpecialToken":{"id":"x"}}],"special_tokens":{"x":{"ids":[9]}}},)"
      R"("model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":[["a","b"]]}})";
  const auto bytes = std::as_bytes(std::span(file));
  const long failures =
      test::fail_each_allocation([] { return 0; }, [&](int) { BpeTokenizer(bytes, "tokenizer.json"); }, [](int) {});
  CHECK(failures > 100);
}
