#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moe_mamba/tokenizers/byte_alphabet.hpp"
#include "moe_mamba/tokenizers/normalizer.hpp"

/// The last part of a tokenizer: from the texts of tokens to text. Everything here goes token by token, so that text can
/// be had while tokens still come. Bytes come out as they are, whether or not they are UTF-8.
namespace moe_mamba::detail {

class TokenDecoder {
 public:
  explicit TokenDecoder(const JsonField& field) {
    joins_with_space_ = field.is_null();
    add(field);
  }

  /// How many characters may be taken from the begin of the text.
  std::size_t strip_count() const { return strip_count_; }
  char strip_character() const { return strip_character_; }

  /// Whether the first token's text differs from what it says elsewhere.
  bool first_differs() const { return joins_with_space_ || (metaspace_ && drops_first_); }

  /// What a token's text says, at the begin of the text or elsewhere; nothing has been stripped yet.
  std::string operator()(std::string_view token, bool first) const {
    std::string text = joins_with_space_ && !first ? ' ' + std::string(token) : std::string(token);
    for (std::size_t i = 0; i < replacements_.size(); ++i) {
      const bool drop = first && metaspace_ && drops_first_ && i == metaspace_index_;
      text = replace_all(text, replacements_[i].first, drop ? std::string_view() : replacements_[i].second);
    }
    if (byte_level_) {
      if (auto bytes = bytes_of_token(text)) text = std::move(*bytes);
    }
    if (byte_fallback_ && text.size() == 6 && text.starts_with("<0x") && text.ends_with('>')) {
      const int high = hexadecimal(text[3]), low = hexadecimal(text[4]);
      if (high >= 0 && low >= 0) text = static_cast<char>(static_cast<unsigned char>(high * 16 + low));
    }
    return text;
  }

 private:
  static int hexadecimal(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  }

  void add(const JsonField& field);
  void add_strip(const JsonField& field);

  bool joins_with_space_ = false, byte_level_ = false, byte_fallback_ = false, fused_ = false;
  bool metaspace_ = false, drops_first_ = false;
  std::size_t metaspace_index_ = 0;
  std::vector<std::pair<std::string, std::string>> replacements_;
  ReplacementGrowth growth_;
  std::size_t strip_count_ = 0;
  char strip_character_ = ' ';
};

inline void TokenDecoder::add(const JsonField& field) {
  if (field.is_null()) return;
  const JsonField type = field["type"];
  const std::size_t kind =
      type.choice({"ByteLevel", "Metaspace", "Replace", "ByteFallback", "Fuse", "Strip", "Sequence"});
  // Each kind has its place in the order Replace or Metaspace, ByteFallback, Fuse, Strip, so that tokens need not be known
  // all at once.
  if (kind <= 2 && (byte_level_ || byte_fallback_ || fused_)) {
    type.refuse("ByteFallback, Fuse or Strip behind those");
  }
  switch (kind) {
    case 0:
      if (!replacements_.empty()) type.refuse("ByteLevel in the first place");
      byte_level_ = true;
      break;
    case 1: {
      if (metaspace_) type.refuse("Metaspace once");
      const bool never =
          !field["prepend_scheme"].is_null() && field["prepend_scheme"].choice({"always", "first", "never"}) == 2;
      metaspace_ = true;
      drops_first_ = !never && field["add_prefix_space"].boolean_or(true);
      metaspace_index_ = replacements_.size();
      if (field["replacement"].string().empty()) field["replacement"].refuse("one character");
      replacements_.emplace_back(field["replacement"].string(), " ");
      break;
    }
    case 2:
      replacements_.emplace_back(literal_pattern(field["pattern"]), field["content"].string());
      growth_.check(field, replacements_.back().first, replacements_.back().second);
      if (replacements_.size() > 8) field.refuse("one replacement more", "at most 8");
      break;
    case 3:
      if (byte_level_ || fused_) type.refuse("ByteFallback before Fuse and without ByteLevel");
      byte_fallback_ = true;
      break;
    case 4:
      fused_ = true;
      break;
    case 5:
      add_strip(field);
      break;
    default:
      for (const JsonField& part : field["decoders"].elements()) add(part);
  }
}

inline void TokenDecoder::add_strip(const JsonField& field) {
  if ((!fused_ && !byte_level_) || strip_count_ > 0) field["type"].refuse("Strip once, behind Fuse");
  const std::string content = field["content"].string();
  if (content.size() != 1) field["content"].refuse("one character of ASCII");
  strip_character_ = content[0];
  strip_count_ = field["start"].integer(1u << 20);
  field["stop"].require_zero_or_null("0, as the end of a text is not known while it comes");
}

}  // namespace moe_mamba::detail
