// Time in proportion to the text and to the file, in the worst case.
#include <ctime>

#include "support/catch.hpp"
#include "tokenizers/fixtures.hpp"

using namespace moe_mamba;

namespace {

std::string repeated(std::string_view unit, std::size_t bytes) {
  std::string text;
  while (text.size() < bytes) text += unit;
  return text;
}

/// CPU seconds for a call: the minimum of three.
template <class Call>
double seconds(const Call& call) {
  double fewest = 1e9;
  for (int i = 0; i < 3; ++i) {
    const std::clock_t begin = std::clock();
    call();
    fewest = std::min(fewest, static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC);
  }
  return fewest;
}

/// Checks that 16 times the size takes at most 40 times the time: quadratic time would be 256 times as long. Times too
/// short to measure are not compared.
template <class Call>
void require_linear(std::size_t size, const Call& call) {
  const double less = seconds([&] { call(size); });
  const double more = seconds([&] { call(16 * size); });
  INFO(less << " s for " << size << ", " << more << " s for 16 times as much");
  REQUIRE(more < std::max(40 * less, 0.1));
}

BpeTokenizer with(const std::string& parts) {
  return test::parse_tokenizer(
      R"({"model":{"type":"BPE","unk_token":"?","vocab":{"a":0,"b":1,"ab":2," ":3,"?":4,"aa":5,)"
      R"("  ":6},"merges":[["a","b"],["a","a"],[" "," "]]},)" +
      parts + "}");
}

void require_linear_texts(const BpeTokenizer& tokenizer, std::initializer_list<const char*> units) {
  for (const char* unit : units) {
    INFO("text of " << detail::in_quotes(unit));
    require_linear(4096, [&](std::size_t size) {
      const auto tokens = tokenizer.encode(repeated(unit, size));
      StreamDecoder stream(tokenizer);
      std::size_t streamed = 0;
      for (const Token token : tokens) streamed += stream.push(token).size();
      REQUIRE(streamed + stream.finish().size() == tokenizer.decode(tokens).size());
    });
  }
}

}  // namespace

TEST_CASE("Added tokens take time in proportion to the text", "[tokenizers]") {
  for (const char* flags : {R"("lstrip":true)", R"("rstrip":true)", R"("lstrip":true,"rstrip":true)",
                            R"("lstrip":true,"rstrip":true,"single_word":true)"}) {
    INFO(flags);
    require_linear_texts(with(R"("added_tokens":[{"id":3,"content":" ",)" + std::string(flags) +
                              R"(},{"id":7,"content":"<s>",)" + flags + "}]"),
                         {" ", " a", " <s> ", "   b", "<s"});
  }
}

TEST_CASE("Normalizers take time in proportion to the text", "[tokenizers]") {
  for (const char* type : {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "ByteLevel"}) {
    INFO(type);
    require_linear_texts(with(R"("normalizer":{"type":")" + std::string(type) + "\"}"),
                         {"\u0301\u0323", "a\u0323\u0301\u05b0", "\u1100\u1161", "\xff", "\u00e9"});
  }
  require_linear_texts(with(R"("normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"a"},)"
                            R"({"type":"Replace","pattern":{"Regex":"a+$|ab"},"content":"x"},)"
                            R"({"type":"Strip","strip_left":true,"strip_right":true}]})"),
                       {"a", "ab", " ", "a "});
}

TEST_CASE("Expressions take time in proportion to the text", "[tokenizers]") {
  for (const char* expression : {"(a|aa)+b", "(?:a+)+b", "(a+a+)+b", "(?=(?:a+)+b)a", "(?:(?=a*b)a)+", "(?!a*b).",
                                 "(?:[ab]+[ab]+)+x", "(?=.*x).", "(?:(?:a|b)+(?:a|b)+)+x", "a{1,200}b",
                                 "(?<=a{0,200})b", "a*$x", "(?=(?=(?=a*b)a*b)a*b)a", "[^x]*x"}) {
    INFO(expression);
    require_linear_texts(with(R"("pre_tokenizer":{"type":"Split","pattern":{"Regex":")" + std::string(expression) +
                              R"("},"behavior":"Isolated","invert":false})"),
                         {"a", "ab", "aab"});
  }
}

TEST_CASE("Decoders take time in proportion to the text", "[tokenizers]") {
  for (
      const char* decoder :
      {R"({"type":"WordPiece","prefix":"a","cleanup":true})", R"({"type":"BPEDecoder","suffix":"a"})",
       R"({"type":"CTC","pad_token":"a"})",
       R"({"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"Strip","content":" ","start":0,"stop":1000000}]})",
       R"({"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"Strip","content":"a","start":1000000,"stop":9}]})"}) {
    INFO(decoder);
    require_linear_texts(with(R"("decoder":)" + std::string(decoder)), {"a", " ", "ab "});
  }
}

TEST_CASE("Files take time in proportion to their size", "[tokenizers]") {
  const auto require_linear_file = [](const auto& make) {
    require_linear(1 << 14, [&](std::size_t size) {
      const std::string file = make(size);
      try {
        test::parse_tokenizer(file);
      } catch (const std::runtime_error&) {  // or it is refused
      }
    });
  };
  const auto model = [](const std::string& vocabulary, const std::string& merges, const std::string& rest = "") {
    return R"({"model":{"vocab":{)" + vocabulary + R"(},"merges":[)" + merges + "]}" + rest + "}";
  };
  const std::string ab = R"("a":0,"b":1,"ab":2)";
  require_linear_file([&](std::size_t size) { return model('"' + std::string(size, 'a') + "\":0", ""); });
  require_linear_file([&](std::size_t size) { return model(ab, repeated("\"a b\",", size) + "\"a b\""); });
  require_linear_file([&](std::size_t size) {
    std::string tokens = R"("a":0,"b":1)", merges, token = "a";
    for (int i = 2; tokens.size() + merges.size() < size; ++i) {
      merges += (i > 2 ? ",\"" : "\"") + token + " b\"";
      token += 'b';
      tokens += ",\"" + token + "\":" + std::to_string(i);
    }
    return model(tokens, merges);
  });
  require_linear_file([&](std::size_t size) {
    std::string tokens;
    for (int i = 3; tokens.size() < size; ++i) {
      tokens += (i > 3 ? R"(,{"id":)" : R"({"id":)") + std::to_string(i) + R"(,"content":")" + std::string(900, 'a') +
                std::to_string(i) + "\"}";
    }
    return model(ab, "", R"(,"added_tokens":[)" + tokens + "]");
  });
  for (const char* rest :
       {"a", "[az", "[[:a]", "\\\\p{L}|", "(", "[", "|", "()", "(?i)", "{0}", "\\\\", "(?x) ", "[^a]&&", "\u00e9"}) {
    INFO(rest);
    require_linear_file([&](std::size_t size) {
      return model(ab, "",
                   R"(,"pre_tokenizer":{"type":"Split","pattern":{"Regex":")" + repeated(rest, size) +
                       R"("},"behavior":"Isolated","invert":false})");
    });
  }
  for (const char* rest : {"1", "[", "[{},", "\"\\u00e9\\ud83d\\ude00", "{\"k\":0,", " ", "-", "1e", "0.", "{\"a\":"}) {
    INFO(rest);
    require_linear_file([&](std::size_t size) { return model(ab, "", R"(,"x":)" + repeated(rest, size)); });
  }
}
