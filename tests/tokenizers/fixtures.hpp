#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "moe_mamba/tokenizers.hpp"

/// The files written by tests/fixtures/tokenizers.py.
namespace test {

inline std::string from_hexadecimal(const std::string& line) {
  std::string text;
  for (std::size_t i = 0; i + 1 < line.size(); i += 2) {
    text += static_cast<char>(std::stoi(line.substr(i, 2), nullptr, 16));
  }
  return text;
}

inline std::filesystem::path fixture(const std::string& name) {
  return std::filesystem::path(MOE_MAMBA_FIXTURES) / "tokenizers" / name;
}

inline std::vector<std::string> lines_of(const std::string& name) {
  std::ifstream file(fixture(name));
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

inline std::vector<std::string> fixture_texts() {
  std::vector<std::string> texts = lines_of("texts.txt");
  for (std::string& text : texts) text = from_hexadecimal(text);
  return texts;
}

inline std::vector<std::string> fixture_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(fixture(""))) {
    if (entry.path().extension() == ".json") names.push_back(entry.path().stem());
  }
  std::sort(names.begin(), names.end());
  return names;
}

inline moe_mamba::BpeTokenizer load_fixture(const std::string& name) {
  return moe_mamba::load_tokenizer(fixture(name + ".json"));
}

/// A tokenizer from the text of a file.
inline moe_mamba::BpeTokenizer parse_tokenizer(const std::string& json) {
  return moe_mamba::BpeTokenizer(std::as_bytes(std::span(json)), "tokenizer.json");
}

inline bool is_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const moe_mamba::detail::Utf8Unit unit = moe_mamba::detail::utf8_unit(text, at);
    if (unit.code == moe_mamba::detail::no_character) return false;
    at += unit.bytes;
  }
  return true;
}

}  // namespace test
