// A user's program that reads a tokenizer here and uses it in the other file.
#include <moe_mamba/tokenizers.hpp>
#include <string>

std::string there_and_back(const moe_mamba::BpeTokenizer& tokenizer, const std::string& text);

int main() {
  const std::string json =
      R"({"normalizer":{"type":"NFC"},"decoder":{"type":"Fuse"},"model":{"vocab":{"\u00e9":0,"a":1,"a\u00e9":2},"merges":["a \u00e9"]}})";
  const moe_mamba::BpeTokenizer tokenizer(std::as_bytes(std::span(json)), "tokenizer.json");
  return there_and_back(tokenizer, "ae\u0301") == "a\u00e9" ? 0 : 1;
}
