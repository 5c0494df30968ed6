// Against the tokens of the tokenizers package.
#include <sstream>
#include <thread>

#include "support/catch.hpp"
#include "tokenizers/fixtures.hpp"

using namespace moe_mamba;

static_assert(Tokenizer<BpeTokenizer>);

namespace {

struct Expected {
  std::vector<Token> tokens;
  std::string decoded;
};

std::vector<Expected> expectations(const std::string& name, const std::vector<std::string>& texts) {
  const auto lines = test::lines_of(name + ".txt");
  REQUIRE(lines.size() == texts.size());
  std::vector<Expected> all;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const std::size_t bar = lines[i].find('|');
    std::istringstream numbers(lines[i].substr(0, bar));
    Expected expected;
    for (Token token; numbers >> token;) expected.tokens.push_back(token);
    expected.decoded = bar == std::string::npos ? texts[i] : test::from_hexadecimal(lines[i].substr(bar + 1));
    all.push_back(std::move(expected));
  }
  return all;
}

}  // namespace

TEST_CASE("Texts in many scripts have the reference's tokens, and tokens the reference's text", "[tokenizers]") {
  const auto texts = test::fixture_texts();
  const auto names = test::fixture_names();
  REQUIRE(names.size() >= 18);
  REQUIRE(texts.size() >= 120);
  for (const std::string& name : names) {
    INFO(name);
    const BpeTokenizer tokenizer = test::load_fixture(name);
    const auto expected = expectations(name, texts);
    WordCache cache;
    for (std::size_t i = 0; i < texts.size(); ++i) {
      INFO("text " << i << ": " << texts[i]);
      const auto tokens = tokenizer.encode(texts[i]);
      REQUIRE(tokens == expected[i].tokens);
      REQUIRE(tokenizer.encode(texts[i], cache) == expected[i].tokens);  // words of the texts before
      REQUIRE(tokenizer.encode(texts[i], cache) == expected[i].tokens);
      REQUIRE(tokenizer.decode(tokens) == expected[i].decoded);
    }
  }
}

TEST_CASE("One tokenizer serves several threads, and one cache several tokenizers", "[tokenizers]") {
  const auto texts = test::fixture_texts();
  std::vector<BpeTokenizer> tokenizers;
  std::vector<std::vector<Expected>> expected;
  for (const char* name : {"neox", "llama2", "llama3"}) {
    tokenizers.push_back(test::load_fixture(name));  // moved as the vector grows
    expected.push_back(expectations(name, texts));
  }
  std::vector<std::size_t> wrong(3);
  std::vector<std::thread> threads;
  for (std::size_t thread = 0; thread < 3; ++thread) {
    threads.emplace_back([&, thread] {
      WordCache cache;
      for (std::size_t i = 0; i < texts.size(); ++i) {
        const std::size_t which = (thread + i) % 3;
        wrong[thread] += tokenizers[which].encode(texts[i], cache) == expected[which][i].tokens ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == std::vector<std::size_t>{0, 0, 0});
}

TEST_CASE("Special tokens around a text, and in it, depend on options", "[tokenizers]") {
  const BpeTokenizer llama = test::load_fixture("llama3");
  const Token begin = llama.token("<|begin_of_text|>").value(), end = llama.token("<|end_of_text|>").value();
  const auto with = llama.encode("Hello");
  const auto without = llama.encode("Hello", {.special_tokens = false});
  REQUIRE(with.size() == without.size() + 2);
  CHECK(with.front() == begin);
  CHECK(with.back() == end);
  CHECK(std::equal(without.begin(), without.end(), with.begin() + 1));
  CHECK(llama.decode(with) == "Hello");
  CHECK(llama.decode(with, {.skip_special_tokens = false}) == "<|begin_of_text|>Hello<|end_of_text|>");
  CHECK(llama.is_special(begin));
  CHECK(!llama.is_special(without.front()));
  CHECK(!llama.is_special(-1));
  CHECK(!llama.token("no token is written like this"));
  CHECK(llama.encode("", {.special_tokens = false}).empty());

  StreamDecoder stream(llama, {.skip_special_tokens = false});
  std::string text;
  for (const Token token : with) text += stream.push(token);
  CHECK(text == "<|begin_of_text|>Hello<|end_of_text|>");

  const BpeTokenizer plain = test::load_fixture("gpt2");
  CHECK(plain.encode("Hello") == plain.encode("Hello", {.special_tokens = false}));
  CHECK(plain.encode("<|endoftext|>") == std::vector<Token>{plain.token("<|endoftext|>").value()});
}
