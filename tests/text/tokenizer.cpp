#include "moe_mamba/text/tokenizer.hpp"

#include <array>

#include "moe_mamba/core/random.hpp"
#include "support/catch.hpp"
#include "support/folder.hpp"

using namespace moe_mamba;

static_assert(Tokenizer<ByteTokenizer>);

namespace {

std::string random_bytes(Random& random, std::size_t most) {
  std::string text(random.below(most + 1), '\0');
  // Mostly bytes of multi-byte characters, complete and truncated.
  for (char& c : text) c = static_cast<char>(random.below(4) == 0 ? random.below(256) : 0x80 + random.below(0x76));
  return text;
}

/// By its definition: whether bytes after `tail` can make its first unit a complete character.
bool can_be_completed(const std::string& tail) {
  constexpr std::array<unsigned char, 6> follow{0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf};
  if (detail::utf8_unit(tail).code != detail::no_character) return false;
  std::vector<std::string> trials{tail};
  for (std::size_t i = 0; i < trials.size() && trials[i].size() < 4; ++i) {
    for (const unsigned char byte : follow) {
      trials.push_back(trials[i] + static_cast<char>(byte));
      const auto unit = detail::utf8_unit(trials.back());
      if (unit.bytes > tail.size()) return true;
    }
  }
  return false;
}

}  // namespace

TEST_CASE("Each code point is one unit of UTF-8, and nothing else is one", "[text]") {
  for (char32_t code = 0; code < 0x110000; ++code) {
    if (code == 0xd800) code = 0xe000;
    std::string text;
    detail::append_utf8(text, code);
    const auto unit = detail::utf8_unit(text + "\x80");
    if (unit.code != code || unit.bytes != text.size()) FAIL("U+" << std::hex << std::uint32_t(code));
    // Truncated, it is single bytes.
    if (text.size() > 1 && detail::utf8_unit(text.substr(0, text.size() - 1)).bytes != 1) {
      FAIL("cut short: U+" << std::hex << std::uint32_t(code));
    }
  }
  for (const char* bytes : {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xed\xbf\xbf",
                            "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xe2\x28\xa1"}) {
    INFO(bytes);
    CHECK(detail::utf8_unit(bytes).code == detail::no_character);
    CHECK(detail::utf8_unit(bytes).bytes == 1);
  }
}

TEST_CASE("Bytes are held back only while more could complete a character", "[text]") {
  Random random(Seed{5});
  for (int round = 0; round < 20000; ++round) {
    const std::string text = random_bytes(random, 5);
    std::size_t expected = 0;
    for (std::size_t count = 1; count <= 3 && count <= text.size(); ++count) {
      if (can_be_completed(text.substr(text.size() - count))) expected = count;
    }
    if (detail::incomplete_utf8(text) != expected) FAIL("round " << round);
  }
}

TEST_CASE("All bytes are tokens and are reproduced by decoding", "[text]") {
  const ByteTokenizer tokenizer;
  Random random(Seed{6});
  for (int round = 0; round < 500; ++round) {
    const std::string text = random_bytes(random, 100);
    const auto tokens = tokenizer.encode(text);
    REQUIRE(tokens.size() == text.size());
    REQUIRE(tokenizer.decode(tokens) == text);

    StreamDecoder stream(tokenizer);
    std::string streamed;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      streamed += stream.push(tokens[i]);
      const std::string whole = text.substr(0, i + 1);
      REQUIRE(streamed == whole.substr(0, whole.size() - detail::incomplete_utf8(whole)));
    }
    REQUIRE(streamed + stream.finish() == text);
    REQUIRE(stream.finish().empty());
  }
  for (const Token token : {-1, 256}) {
    INFO(token);
    StreamDecoder stream(tokenizer);
    stream.push(0xe2);
    const auto message = test::message_of<std::out_of_range>([&] { stream.push(token); });
    CHECK(message == "token is " + std::to_string(token) + "; allowed: 0 to 255");
    CHECK(stream.push(0x82).empty());
    CHECK(stream.push(0xac) == "\u20ac");
  }
}
