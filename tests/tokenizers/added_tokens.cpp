// Added tokens in a text, against what the tokenizers package gives.
#include "support/catch.hpp"
#include "tokenizers/fixtures.hpp"

using namespace moe_mamba;

namespace {

/// A tokenizer with "\n" as token 4 and "\t" as token 5; `l` and `r` in the flags let them take the space beside them.
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

TEST_CASE("A token that an earlier one took as white space is not there twice", "[tokenizers]") {
  using Tokens = std::vector<Token>;
  const BpeTokenizer both = with_line_breaks("lr", "lr");
  CHECK(both.encode("a\n\nb") == Tokens{0, 4, 1});
  CHECK(both.encode("a \n \n b") == Tokens{0, 4, 1});
  CHECK(both.encode("\n\n\n") == Tokens{4});
  CHECK(both.encode("\n\t\n") == Tokens{4});
  CHECK(both.decode(both.encode("a\n\nb")) == "a b");

  // What takes no space in front of it is still found in what another took behind itself.
  const BpeTokenizer right = with_line_breaks("r", "");
  CHECK(right.encode("a\n\nb") == Tokens{0, 4, 4, 1});
  CHECK(right.encode("\n\t ab") == Tokens{4, 5, 2, 3});

  const BpeTokenizer left = with_line_breaks("r", "l");
  CHECK(left.encode("\n\tab") == Tokens{4, 3});
  CHECK(left.encode("\n \tab") == Tokens{4, 3});
  CHECK(left.encode("\n\t ab") == Tokens{4, 3});  // the package fails here
}
