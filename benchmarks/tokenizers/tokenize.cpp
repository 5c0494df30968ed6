// tokenize <tokenizer.json> <file>           encodes and decodes a text and says how fast tokenize <tokenizer.json>
// --hexadecimal    for each line, a text in hexadecimal digits: its tokens, and after '|' what
//                                            they decode to where that is another text
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <iostream>
#include <string>

#include "moe_mamba/io/text.hpp"
#include "moe_mamba/tokenizers.hpp"

using namespace moe_mamba;

namespace {

std::string from_hexadecimal(const std::string& line) {
  std::string text;
  for (std::size_t i = 0; i + 1 < line.size(); i += 2) {
    text += static_cast<char>(std::stoi(line.substr(i, 2), nullptr, 16));
  }
  return text;
}

std::string to_hexadecimal(const std::string& text) {
  constexpr const char* digits = "0123456789abcdef";
  std::string line;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    line += digits[byte / 16];
    line += digits[byte % 16];
  }
  return line;
}

void encode_lines(const BpeTokenizer& tokenizer) {
  WordCache cache;
  for (std::string line; std::getline(std::cin, line);) {
    const std::string text = from_hexadecimal(line);
    const auto tokens = tokenizer.encode(text, cache);
    std::string output;
    for (const Token token : tokens) {
      if (!output.empty()) output += ' ';
      output += std::to_string(token);
    }
    const std::string decoded = tokenizer.decode(tokens);
    if (decoded != text) output += '|' + to_hexadecimal(decoded);
    std::cout << output << '\n';
  }
}

template <class Work>
double best_of_five(const Work& work) {
  double best = 1e30;
  for (int round = 0; round < 5; ++round) {
    const std::clock_t start = std::clock();  // CPU time, as other programs may be running
    work();
    best = std::min(best, static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
  }
  return best;
}

void measure(const char* file, const BpeTokenizer& tokenizer) {
  const auto bytes = read_text(file);
  const std::string text(bytes.begin(), bytes.end());
  const double megabytes = static_cast<double>(text.size()) / 1e6;
  std::vector<Token> tokens;
  WordCache cache;
  const double cold = best_of_five([&] { tokens = tokenizer.encode(text); });
  const double warm = best_of_five([&] { tokens = tokenizer.encode(text, cache); });
  std::string decoded;
  const double decoding = best_of_five([&] { decoded = tokenizer.decode(tokens); });
  std::printf("%.2f MB, %zu tokens: encode %.1f MB/s, with a kept cache %.1f MB/s; decode %.1f MB/s; round trip %s\n",
              megabytes, tokens.size(), megabytes / cold, megabytes / warm, megabytes / decoding,
              decoded == text ? "exact" : "different");
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) {
    std::fprintf(stderr, "tokenize <tokenizer.json> <file | --hexadecimal>\n");
    return 2;
  }
  try {
    const auto start = std::chrono::steady_clock::now();
    const BpeTokenizer tokenizer = load_tokenizer(arguments[1]);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    if (std::strcmp(arguments[2], "--hexadecimal") == 0) {
      encode_lines(tokenizer);
    } else {
      std::printf("loaded in %.3f s\n", took.count());
      measure(arguments[2], tokenizer);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
