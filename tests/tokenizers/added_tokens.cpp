// Added tokens in a text, against the tokenizers package.
#include <random>
#include <set>

#include "support/catch.hpp"
#include "tokenizers/fixtures.hpp"

using namespace moe_mamba;

namespace {

/// A tokenizer with "\n" as token 4 and "\t" as token 5; `l` and `r` in the flags let them strip adjacent space.
BpeTokenizer with_line_breaks(const std::string& newline, const std::string& tab) {
  const auto token = [](const std::string& text, int id, const std::string& flags) {
    const auto has = [&](char flag) { return std::string(flags.find(flag) != flags.npos ? "true" : "false"); };
    return R"({"content":")" + text + R"(","id":)" + std::to_string(id) + R"(,"special":true,"lstrip":)" + has('l') +
           R"(,"rstrip":)" + has('r') + "}";
  };
  return test::parse_tokenizer(R"({"added_tokens":[)" + token("\\n", 4, newline) + "," + token("\\t", 5, tab) +
                               R"(],"model":{"type":"BPE","vocab":{"a":0,"b":1," ":2,"ab":3},"merges":["a b"]}})");
}

}  // namespace

TEST_CASE("A token that an earlier one stripped as white space is not emitted again", "[tokenizers]") {
  using Tokens = std::vector<Token>;
  const BpeTokenizer both = with_line_breaks("lr", "lr");
  CHECK(both.encode("a\n\nb") == Tokens{0, 4, 1});
  CHECK(both.encode("a \n \n b") == Tokens{0, 4, 1});
  CHECK(both.encode("\n\n\n") == Tokens{4});
  CHECK(both.encode("\n\t\n") == Tokens{4});
  CHECK(both.decode(both.encode("a\n\nb")) == "a b");

  // A token without lstrip is still matched in white space that another token stripped with rstrip.
  const BpeTokenizer right = with_line_breaks("r", "");
  CHECK(right.encode("a\n\nb") == Tokens{0, 4, 4, 1});
  CHECK(right.encode("\n\t ab") == Tokens{4, 5, 2, 3});

  const BpeTokenizer left = with_line_breaks("r", "l");
  CHECK(left.encode("\n\tab") == Tokens{4, 3});
  CHECK(left.encode("\n \tab") == Tokens{4, 3});
  CHECK(left.encode("\n\t ab") == Tokens{4, 3});  // the package fails here
}

TEST_CASE("The longest of many added tokens with common prefixes is found", "[tokenizers]") {
  std::mt19937 random(1);
  const auto random_text = [&](std::size_t least, std::size_t most) {
    std::string text(least + random() % (most - least + 1), 'a');
    for (char& byte : text) byte = random() % 6 == 0 ? 'b' : 'a';
    return text;
  };
  for (int round = 0; round < 100; ++round) {
    detail::AddedTokens added;
    std::set<std::string> texts;
    for (std::size_t count = 1 + random() % 60; count > 0; --count) {
      const std::string text = random_text(1, 1 + random() % 30);
      REQUIRE(added.add({static_cast<Token>(texts.size()), text, false, false, false}) == texts.insert(text).second);
    }
    const std::string text = random_text(200, 400);
    std::vector<std::string> expected, found;
    for (std::size_t at = 0; at < text.size();) {
      std::string longest;
      for (const std::string& token : texts) {
        if (token.size() > longest.size() && text.compare(at, token.size(), token) == 0) longest = token;
      }
      if (!longest.empty()) expected.push_back(longest);
      at += std::max<std::size_t>(longest.size(), 1);
    }
    added.split(text, [&](std::size_t, std::size_t, const detail::AddedToken* token) {
      if (token != nullptr) found.push_back(token->text);
    });
    REQUIRE(found == expected);
  }
}
