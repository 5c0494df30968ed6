// Properties for any text, including invalid bytes.
#include <map>

#include "moe_mamba/core/random.hpp"
#include "support/catch.hpp"
#include "support/folder.hpp"
#include "tokenizers/fixtures.hpp"

using namespace moe_mamba;

namespace {

constexpr const char* exact[] = {"gpt2", "llama3", "gpt4", "gpt4o", "tekken", "digits"};  // without a normalizer

/// Random bytes, with repeated bytes and fragments of real text between them.
std::string random_text(Random& random, const std::vector<std::string>& texts) {
  std::string text;
  for (auto parts = random.below(8); parts > 0; --parts) {
    switch (random.below(5)) {
      case 0:
        for (auto count = random.below(20); count > 0; --count) text += static_cast<char>(random.below(256));
        break;
      case 1:
        text.append(random.below(70), static_cast<char>(random.below(256)));
        break;
      case 2:
        text.append(random.below(10), " \n\r\t'"[random.below(5)]);
        break;
      default: {
        const std::string& other = texts[random.below(texts.size())];
        text += other.substr(random.below(other.size() + 1), random.below(60));
      }
    }
  }
  return text;
}

std::string streamed(const BpeTokenizer& tokenizer, const std::vector<Token>& tokens, DecodeOptions options = {}) {
  StreamDecoder stream(tokenizer, options);
  std::string text;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    text += stream.push(tokens[i]);
    // Only bytes that may become a character are held back.
    const std::string whole = tokenizer.decode(std::span(tokens).first(i + 1), options);
    REQUIRE(text == whole.substr(0, whole.size() - detail::incomplete_utf8(whole)));
  }
  return text + stream.finish();
}

}  // namespace

TEST_CASE("A byte-level tokenizer reproduces any bytes", "[tokenizers]") {
  const auto texts = test::fixture_texts();
  for (const char* name : exact) {
    INFO(name);
    const BpeTokenizer tokenizer = test::load_fixture(name);
    Random random(Seed{7});
    WordCache cache;
    for (int round = 0; round < 400; ++round) {
      const std::string text = random_text(random, texts);
      const auto tokens = tokenizer.encode(text, cache, {.special_tokens = false});
      REQUIRE(tokens == tokenizer.encode(text, {.special_tokens = false}));
      REQUIRE(tokenizer.decode(tokens, {.skip_special_tokens = false}) == text);
      REQUIRE(streamed(tokenizer, tokens, {.skip_special_tokens = false}) == text);
    }
  }
}

TEST_CASE("A tokenizer that falls back to bytes gives back any bytes in which a space is written as one",
          "[tokenizers]") {
  const auto texts = test::fixture_texts();
  for (const char* name : {"llama2", "gemma"}) {
    INFO(name);
    const BpeTokenizer tokenizer = test::load_fixture(name);
    Random random(Seed{8});
    for (int round = 0; round < 400; ++round) {
      const std::string text = random_text(random, texts);
      // Representations of a space or a byte are decoded to it; a special token consumes an adjacent space.
      if (text.find("\u2581") != text.npos || text.find("<") != text.npos) continue;
      REQUIRE(tokenizer.decode(tokenizer.encode(text)) == text);
    }
  }
}

TEST_CASE("Text decoded token by token is the text of all tokens", "[tokenizers]") {
  for (const std::string& name : test::fixture_names()) {
    INFO(name);
    const BpeTokenizer tokenizer = test::load_fixture(name);
    Random random(Seed{9});
    for (int round = 0; round < 200; ++round) {
      std::vector<Token> tokens;
      for (auto count = random.below(30); count > 0; --count) {
        const auto token = static_cast<Token>(random.below(static_cast<std::uint64_t>(tokenizer.vocabulary())));
        if (tokenizer.contains(token)) tokens.push_back(token);
      }
      const DecodeOptions options{.skip_special_tokens = random.below(2) == 0};
      REQUIRE(streamed(tokenizer, tokens, options) == tokenizer.decode(tokens, options));
    }
  }
}

TEST_CASE("Invalid bytes are separate units that count as punctuation", "[tokenizers]") {
  const auto words_of = [&](const std::string& text) {
    std::vector<std::string> words;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = detail::match_word(detail::split_patterns[0], text, at);
      words.push_back(text.substr(at, end - at));
      at = end;
    }
    return words;
  };
  CHECK(words_of("ab\xff\xfe"
                 "cd") == std::vector<std::string>{"ab", "\xff\xfe", "cd"});
  CHECK(words_of("1\xe2\x82 \xac") == std::vector<std::string>{"1", "\xe2\x82", " \xac"});
  CHECK(words_of("\xed\xa0\x80!") == std::vector<std::string>{"\xed\xa0\x80!"});
  CHECK(words_of("e\u0301\xcc"
                 "a") == std::vector<std::string>{"e", "\u0301\xcc", "a"});

  // Normalisation keeps them, and does not cross them.
  const detail::UnicodeNormalizer normalize(detail::NormalForm::Nfc);
  CHECK(normalize("e\u0301\xff"
                  "e\u0301") == "\u00e9\xff\u00e9");
  CHECK(normalize("e\xff\u0301") == "e\xff\u0301");
  CHECK(normalize("\u1100\u1161\u11a8\xe1\x84") == "\uac01\xe1\x84");
  CHECK(normalize("c\u0301\u0327 \u212b") == "\u1e09 \u00c5");
}

TEST_CASE("Every pattern splits any bytes into non-empty words", "[tokenizers]") {
  const auto texts = test::fixture_texts();
  Random random(Seed{10});
  for (int round = 0; round < 2000; ++round) {
    const std::string text = random_text(random, texts);
    for (const auto& pattern : detail::split_patterns) {
      for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = detail::match_word(pattern, text, at);
        if (end <= at || end > text.size()) FAIL(pattern.name << " stands still at " << at);
        at = end;
      }
    }
  }
}

TEST_CASE("Words of any length are merged by rank, then from the left", "[tokenizers]") {
  // A vocabulary of all strings of a, b and c of up to 3 letters and some longer ones, merged in random order.
  Random random(Seed{11});
  for (int round = 0; round < 20; ++round) {
    std::vector<std::string> tokens{"a", "b", "c"};
    std::map<std::pair<std::string, std::string>, std::size_t> ranks;
    std::string merges;
    for (int tries = 0; tries < 60; ++tries) {
      const std::string left = tokens[random.below(tokens.size())], right = tokens[random.below(tokens.size())];
      if (ranks.count({left, right}) > 0 || left.size() + right.size() > 9) continue;
      merges += (ranks.empty() ? "[\"" : ",[\"") + left + "\",\"" + right + "\"]";
      ranks.emplace(std::pair(left, right), ranks.size());
      if (std::find(tokens.begin(), tokens.end(), left + right) == tokens.end()) tokens.push_back(left + right);
    }
    std::string vocabulary;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      vocabulary += (i == 0 ? "\"" : ",\"") + tokens[i] + "\":" + std::to_string(i);
    }
    const BpeTokenizer tokenizer =
        test::parse_tokenizer(R"({"model":{"type":"BPE","vocab":{)" + vocabulary + R"(},"merges":[)" + merges + "]}}");
    for (const std::size_t length : {0u, 1u, 2u, 3u, 10u, 47u, 48u, 49u, 97u, 300u}) {
      std::string text;
      for (std::size_t i = 0; i < length; ++i) text += static_cast<char>('a' + random.below(3));
      std::vector<std::string> symbols;
      for (const char c : text) symbols.emplace_back(1, c);
      for (;;) {
        std::size_t best = ranks.size(), index = 0;
        for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
          const auto found = ranks.find({symbols[i], symbols[i + 1]});
          if (found != ranks.end() && found->second < best) best = found->second, index = i;
        }
        if (best == ranks.size()) break;
        symbols[index] += symbols[index + 1];
        symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(index) + 1);
      }
      std::vector<Token> expected;
      for (const std::string& symbol : symbols) {
        expected.push_back(static_cast<Token>(std::find(tokens.begin(), tokens.end(), symbol) - tokens.begin()));
      }
      INFO(text);
      REQUIRE(tokenizer.encode(text) == expected);
    }
  }
}

TEST_CASE("Text without a token is named", "[tokenizers]") {
  const BpeTokenizer tokenizer = test::parse_tokenizer(R"({"model":{"vocab":{"a":0,"b":5},"merges":[]}})");
  CHECK(tokenizer.vocabulary() == 6);
  CHECK(tokenizer.encode("abba") == std::vector<Token>{0, 5, 5, 0});
  CHECK(tokenizer.decode(std::vector<Token>{0, 5, 5}) == "a b b");
  CHECK(test::message_of<std::invalid_argument>([&] { tokenizer.encode("ab\u00e9"); }) ==
        "text is \"\u00e9\" at byte 2; allowed: characters that have a token, as this tokenizer has no "
        "unk_token");
  for (const Token token : {-1, 1, 4, 6, 1 << 30}) {
    const auto message = test::message_of<std::out_of_range>([&] { tokenizer.decode(std::vector<Token>{0, token}); });
    CHECK(message == "token is " + std::to_string(token) + "; allowed: 0 to 5, except gaps in the vocabulary");
  }
}
