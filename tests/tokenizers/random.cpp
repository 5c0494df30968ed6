// Random tokenizer files and texts, against the tokens and texts of the tokenizers package.
#include <cstdlib>
#include <optional>

#include "support/catch.hpp"
#include "tokenizers/fixtures.hpp"

using namespace moe_mamba;

namespace {

std::string stream(const BpeTokenizer& tokenizer, const std::vector<Token>& tokens) {
  StreamDecoder decoder(tokenizer);
  std::string text;
  for (const Token token : tokens) text += decoder.push(token);
  return text + decoder.finish();
}

/// A text without a token for one of its characters is an error here; the package omits the character.
std::optional<std::vector<Token>> encode(const BpeTokenizer& tokenizer, const std::string& text) {
  try {
    return tokenizer.encode(text);
  } catch (const std::invalid_argument&) {
    return std::nullopt;
  }
}

}  // namespace

TEST_CASE("Random tokenizers give the reference's tokens and texts", "[tokenizers]") {
  const char* other = std::getenv("MOE_MAMBA_TOKENIZER_CASES");
  const auto folder = std::filesystem::path(MOE_MAMBA_FIXTURES);
  const std::string path = other != nullptr ? other : (folder / "tokenizers_random.jsonl").string();
  std::ifstream file(path);
  REQUIRE(file);
  std::size_t files = 0, texts = 0, unknown = 0, decoded = 0;
  for (std::string line; std::getline(file, line); ++files) {
    INFO("line " << files + 1);
    const JsonValue fields = parse_json(line, path);
    const BpeTokenizer tokenizer = test::parse_tokenizer(fields.find("file")->string);
    for (const JsonValue& element : fields.find("cases")->elements) {
      const std::string& text = element.elements[0].string;
      INFO(text);
      std::vector<Token> expected;
      for (const JsonValue& token : element.elements[1].elements) {
        expected.push_back(static_cast<Token>(token.integer));
      }
      ++texts;
      const auto tokens = encode(tokenizer, text);
      if (!tokens) {
        ++unknown;
        continue;
      }
      REQUIRE(*tokens == expected);
      const std::string all = tokenizer.decode(*tokens);
      REQUIRE(stream(tokenizer, *tokens) == all);
      if (element.elements[2].kind == JsonValue::Kind::null) continue;
      REQUIRE(all == element.elements[2].string);
      ++decoded;
    }
  }
  CHECK(files >= 100);
  CHECK(texts >= 3 * files);
  CHECK(unknown < texts / 10);
  CHECK(decoded > texts / 2);
}
