#include <moe_mamba/tokenizers.hpp>
#include <string>

std::string there_and_back(const moe_mamba::BpeTokenizer& tokenizer, const std::string& text) {
  return tokenizer.decode(tokenizer.encode(text));
}
