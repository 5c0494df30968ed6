// Messages for text without tokens, which are always UTF-8.
#include "moe_mamba/core/random.hpp"
#include "support/catch.hpp"
#include "support/folder.hpp"
#include "tokenizers/fixtures.hpp"

using namespace moe_mamba;

namespace {

/// A tokenizer of "a", "b" and a space only.
BpeTokenizer with(const std::string& parts, const std::string& model = "") {
  return test::parse_tokenizer("{" + parts + R"("model":{)" + model + R"("vocab":{"a":0,"b":1," ":2},"merges":[]}})");
}

/// The message for a text, up to the semicolon.
std::string complaint(const BpeTokenizer& tokenizer, const std::string& text) {
  const std::string message = test::message_of<std::invalid_argument>([&] { tokenizer.encode(text); });
  return message.substr(0, message.find("; allowed: characters that have a token, as "));
}

const std::string byte_level = R"("pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},)";

}  // namespace

TEST_CASE("A character without a token is shown whole, with its position in the text", "[tokenizers]") {
  for (const std::string& parts : {std::string(), byte_level}) {
    const BpeTokenizer tokenizer = with(parts);
    CHECK(complaint(tokenizer, "ab\u00e9") == "text is \"\u00e9\" at byte 2");
    CHECK(complaint(tokenizer, "ab\u00e9\U0001f600") == "text is \"\u00e9\" at byte 2");
    CHECK(complaint(tokenizer, "\U0001f600") == "text is \"\U0001f600\" at byte 0");
    CHECK(complaint(tokenizer, "a\xe2\x82") == "text is \"\\xe2\" at byte 1");
    CHECK(complaint(tokenizer, "a\n") == "text is \"\\x0a\" at byte 1");
    CHECK(complaint(tokenizer, std::string(100'000, 'a') + "c") == "text is \"c\" at byte 100000");
    CHECK(test::message_of<std::invalid_argument>([&] { tokenizer.encode("c"); }).ends_with("has no unk_token"));
  }
}

TEST_CASE("An unk_token outside the vocabulary is named when it is needed", "[tokenizers]") {
  const BpeTokenizer tokenizer = with("", R"("unk_token":"?",)");
  CHECK(tokenizer.encode("ab") == std::vector<Token>{0, 1});
  CHECK(test::message_of<std::invalid_argument>([&] { tokenizer.encode("abc"); }) ==
        "text is \"c\" at byte 2; allowed: characters that have a token, as its unk_token \"?\" is not in the "
        "vocabulary");
}

TEST_CASE("The position of a character is that in the original text, whatever the preceding steps", "[tokenizers]") {
  const std::string added = R"("added_tokens":[{"id":9,"content":"<s>","special":true}],)";
  CHECK(complaint(with(added), "a<s>a<s>ac") == "text is \"c\" at byte 9");
  CHECK(complaint(with(added + R"("normalizer":{"type":"NFC"},)"), "a<s>ac") == "text is \"c\" at byte 5");
  CHECK(complaint(with(added + R"("normalizer":{"type":"Prepend","prepend":"b"},)"), "a<s>ac") ==
        "text is \"c\" at byte 2 of the normalised text from byte 4 on");
  CHECK(complaint(with(R"("normalizer":{"type":"NFC"},)"), "ae\u0301") ==
        "text is \"\u00e9\" at byte 1 of the normalised text from byte 0 on");

  const auto metaspace = [](const std::string& scheme, const std::string& replacement) {
    return with(R"("pre_tokenizer":{"type":"Metaspace","replacement":")" + replacement + R"(","prepend_scheme":")" +
                scheme + "\"},");
  };
  CHECK(complaint(metaspace("always", "b"), "a a c") == "text is \"c\" at byte 4");
  CHECK(complaint(metaspace("always", "b"), "c") == "text is \"c\" at byte 0");
  CHECK(complaint(metaspace("never", "b"), "a \u00e9 c") == "text is \"\u00e9\" at byte 2");
  CHECK(complaint(metaspace("never", "\u2581"), "a\u2581a a") == "text is \"\u2581\" at byte 1");
  CHECK(complaint(metaspace("never", "\u2581"), "a a") ==
        "text is \"\u2581\", which the pre-tokenizer writes for \" \" at byte 1");
  CHECK(complaint(metaspace("first", "\u2581"), "ba") ==
        "text is \"\u2581\", which the pre-tokenizer writes for \"b\" at byte 0");
  const BpeTokenizer prefix = test::parse_tokenizer(R"({"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":true},)"
                                                    R"("model":{"vocab":{"a":0,"\u0120":1},"merges":[]}})");
  CHECK(complaint(prefix, "ac") == "text is \"c\" at byte 1");
  CHECK(complaint(prefix, "c") == "text is \"c\" at byte 0");
}

TEST_CASE("Messages are UTF-8 for any text and file", "[tokenizers]") {
  Random random(Seed{14});
  const BpeTokenizer tokenizers[] = {with(""), with(byte_level), with(R"("normalizer":{"type":"NFKD"},)")};
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (auto count = 1 + random.below(6); count > 0; --count) {
      if (random.below(2) == 0)
        text += static_cast<char>(random.below(256));
      else
        detail::append_utf8(text, static_cast<char32_t>(0x20 + random.below(0xd000)));
    }
    const std::string message =
        test::message_of<std::invalid_argument>([&] { tokenizers[round % 3].encode(text + "c"); });
    REQUIRE(message.starts_with("text is \""));
    if (!test::is_utf8(message)) FAIL(message);

    // Long names are truncated wherever one is shown.
    std::string name;
    while (name.size() < 97 + random.below(10))
      detail::append_utf8(name, static_cast<char32_t>(0x20 + random.below(0xd000)));
    const std::string file = test::message_of<std::runtime_error>([&] {
      const std::string quoted = name.find_first_of("\"\\") == name.npos ? name : std::string(120, 'x') + "\u00e9";
      with(round % 2 == 0 ? "\"version\":\"" + quoted + "\"," : "", "\"unk_token\":1,\"" + quoted + "\":2,");
    });
    if (!test::is_utf8(file)) FAIL(file);
  }
}
