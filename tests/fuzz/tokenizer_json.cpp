// Any bytes as a tokenizer.json: refused by name, or a tokenizer that can be used.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <stdexcept>
#include <string_view>

#include "moe_mamba/tokenizers.hpp"

using namespace moe_mamba;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const BpeTokenizer tokenizer(std::as_bytes(std::span(data, size)), "tokenizer.json");
    // The file itself is a text that has to do with its tokens.
    const std::string_view text(reinterpret_cast<const char*>(data), size < 512 ? size : 512);
    for (const std::string_view part : {text, std::string_view(" Hello,  w\u00f6rld's 123\n\xff")}) {
      const auto tokens = tokenizer.encode(part);
      const std::string decoded = tokenizer.decode(tokens);
      StreamDecoder stream(tokenizer);
      std::string streamed;
      for (const Token token : tokens) streamed += stream.push(token);
      if (streamed + stream.finish() != decoded) std::abort();
    }
  } catch (const std::runtime_error&) {     // the file
  } catch (const std::invalid_argument&) {  // a character without a token
  }
  return 0;
}
