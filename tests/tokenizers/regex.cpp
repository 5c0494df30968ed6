// Regular expressions: against the hand-written matchers, against Oniguruma, and in linear time.
#include <chrono>

#include "moe_mamba/core/random.hpp"
#include "support/catch.hpp"
#include "support/folder.hpp"
#include "tokenizers/fixtures.hpp"

using namespace moe_mamba;

namespace {

std::vector<std::string> matches(const std::string& expression, std::string_view text) {
  const detail::Regex regex(expression, detail::CharacterProperties());
  std::vector<std::string> all;
  detail::RegexMatcher(regex, text).for_each([&](std::size_t begin, std::size_t end) {
    all.emplace_back(text.substr(begin, end - begin));
  });
  return all;
}

/// The error of an expression, "" if there is none.
std::string complaint(const std::string& expression) {
  try {
    matches(expression, "");
  } catch (const detail::RegexError& error) {
    CHECK(!error.allowed.empty());
    return std::to_string(error.at) + ": " + error.problem;
  }
  return "";
}

}  // namespace

TEST_CASE("The hand-written matchers agree with their expressions", "[tokenizers]") {
  const auto texts = test::fixture_texts();
  const detail::CharacterProperties properties;
  Random random(Seed{15});
  for (const detail::SplitPattern& pattern : detail::split_patterns) {
    INFO(pattern.name);
    const detail::Regex regex(pattern.regex, properties);
    for (int round = 0; round < 300; ++round) {
      std::string text = texts[random.below(texts.size())];
      for (auto count = random.below(6); count > 0; --count) {
        const std::string& other = texts[random.below(texts.size())];
        text.insert(random.below(text.size() + 1), other.substr(random.below(other.size() + 1), random.below(9)));
      }
      std::size_t at = 0;
      detail::RegexMatcher(regex, text).for_each([&](std::size_t begin, std::size_t end) {
        REQUIRE(begin == at);
        REQUIRE(detail::match_word(pattern, text, at) == end);
        at = end;
      });
      REQUIRE(at == text.size());
    }
  }
}

TEST_CASE("Expressions match what Oniguruma matches", "[tokenizers]") {
  using Words = std::vector<std::string>;
  CHECK(matches("[0-9][0-9][0-9]", "1234567 89") == Words{"123", "456"});
  CHECK(matches(R"(\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N})))", "1234567") == Words{"1", "234", "567"});
  CHECK(matches("(?<=a|bc)d", "adbcd") == Words{"d", "d"});
  CHECK(matches("(?<!a)b", "abbb") == Words{"b", "b"});
  CHECK(matches(R"(\p{Han}+)", "\u6f22\u5b57\u304b\u306a") == Words{"\u6f22\u5b57"});
  CHECK(matches("[[:alpha:]&&[^a]]+", "abc") == Words{"bc"});
  CHECK(matches("(?i:s|k)", "sS\u017fK\u212a") == Words{"s", "S", "\u017f", "K", "\u212a"});
  CHECK(matches("a(?i)b|c", "aBACac") == Words{"aB", "ac"});
  CHECK(matches("a{2}+", "aaaaa") == Words{"aaaa"});
  CHECK(matches("a{2}?", "aaa") == Words{"aa", ""});
  CHECK(matches("a+?", "aa") == Words{"a", "a"});
  CHECK(matches("a++a|a", "aa") == Words{"a", "a"});
  CHECK(matches("(?>a|ab)c|b", "abc") == Words{"b"});
  CHECK(matches("x*", "axxb") == Words{"", "xx", ""});
  CHECK(matches("a{x", "a{x") == Words{"a{x"});
  CHECK(matches("[]a-]+", "]a-") == Words{"]a-"});
  CHECK(matches(R"(^.|.$)", "ab\ncd") == Words{"a", "b", "c", "d"});
  CHECK(matches(R"(\R)", "a\r\n\u2028") == Words{"\r\n", "\u2028"});
  CHECK(matches(R"(\b\w)", "ab c") == Words{"a", "c"});
  CHECK(matches(R"((?x: a \x{62} # and a note
                       c ))",
                "abc") == Words{"abc"});
  CHECK(matches(R"([^\p{L}]+)", "a\xff\xe2!b") == Words{"\xff\xe2!"});  // bytes that are no characters
}

TEST_CASE("Invalid or unsupported expressions are refused with the position", "[tokenizers]") {
  CHECK(complaint("(a") == "2: the end of the expression");
  CHECK(complaint("a)") == "1: an unmatched )");
  CHECK(complaint("[a") == "2: an unmatched [");
  CHECK(complaint("*a") == "0: nothing to repeat");
  CHECK(complaint("[z-a]") == "4: a reversed range");
  CHECK(complaint(R"(\p{Klingon})") == "3: an unknown property");
  CHECK(complaint(R"((a)\1)") == "4: the escape \\1");
  CHECK(complaint(R"(a\K)") == "2: the escape \\K");
  CHECK(complaint("(?<=a+)b") == "0: an unbounded lookbehind");
  CHECK(complaint("(?:a*b?)*") == "0: an unbounded repetition of an expression that can be empty");
  CHECK(complaint("(?~a)") == "2: an unsupported kind of group");
  CHECK(complaint("a{1001}") == "5: more than 1000 repetitions");
  CHECK(complaint("(?:a{1000}b{1000}){1000}") == "0: too long");
  CHECK(complaint(std::string(10'000, '(')) == "50: nested deeper than 50");
  CHECK(complaint(std::string(10'000, '[')) == "50: nested deeper than 50");
  const detail::CharacterProperties properties;
  Random random(Seed{16});
  for (int round = 0; round < 4'000; ++round) {
    std::string expression;
    for (auto count = random.below(8); count > 0; --count) {
      const char* const parts[] = {"(", ")",    "[", "]", "\\", "{", "}", "?", "*", "+", "|",    "^",      "&&",
                                   "-", "p{L}", "1", ",", "=",  "!", "<", ":", "a", "x", "\xff", "\u00e9", "[:alpha:]"};
      expression += parts[random.below(std::size(parts))];
    }
    // Parsed or refused; a parsed one is run over some text.
    try {
      const detail::Regex regex(expression, properties);
      std::size_t last = 0;
      detail::RegexMatcher(regex, "a1-xa\xff\u00e9 a").for_each([&](std::size_t begin, std::size_t end) {
        REQUIRE(begin >= last);
        REQUIRE(end >= begin);
        last = end;
      });
    } catch (const detail::RegexError&) {
    }
  }
}

TEST_CASE("Matching takes time proportional to the text for every expression", "[tokenizers]") {
  const auto seconds = [](const std::string& expression, std::size_t size) {
    const std::string text(size, 'a');
    const auto start = std::chrono::steady_clock::now();
    matches(expression, text);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  // Each of these is quadratic or worse if failed attempts are repeated.
  for (const char* expression :
       {"a*b", "a*?b", "(?:a|aa)+b", "(?:a?){30}b", "(?=a*b)a|c", "(?!a*b)a", "(?=a*)a", "(?=(?:a|aa)*)a", "a{1,3}+b",
        "a++b", "(?:a*c|a)", "(?:(?:a|a)*a)*b", "(?=(?:a{3})+(?!a))"}) {
    INFO(expression);
    CHECK(seconds(expression, 200'000) < 10);  // under a sanitizer; quadratic ones take minutes without
  }
}
