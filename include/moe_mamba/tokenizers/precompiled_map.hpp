#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "moe_mamba/tokenizers/json_field.hpp"
#include "moe_mamba/tokenizers/unicode.hpp"

namespace moe_mamba::inline v0_2::detail {

/// Decodes base64 with padding; none if the text is invalid.
inline std::optional<std::string> decode_base64(std::string_view text) {
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  if (text.size() % 4 != 0) return std::nullopt;
  std::array<std::int8_t, 256> value;
  value.fill(-1);
  for (std::size_t i = 0; i < digits.size(); ++i)
    value[static_cast<unsigned char>(digits[i])] = static_cast<std::int8_t>(i);
  const std::size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  std::string bytes;
  bytes.reserve(text.size() / 4 * 3);
  std::uint32_t bits = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const int digit = i < text.size() - padding ? value[static_cast<unsigned char>(text[i])] : 0;
    if (digit < 0) return std::nullopt;
    bits = bits << 6 | static_cast<std::uint32_t>(digit);
    if (i % 4 != 3) continue;
    for (const int shift : {16, 8, 0}) bytes += static_cast<char>(static_cast<unsigned char>(bits >> shift & 0xff));
    bits = 0;
  }
  bytes.resize(bytes.size() - padding);
  return bytes;
}

/// The normalizer of sentencepiece: a table of strings and their replacements, looked up in a trie stored as a double
/// array (Aoe 1989). Grapheme clusters of less than 6 bytes are looked up whole, then each character.
class PrecompiledMap {
 public:
  explicit PrecompiledMap(const JsonField& field) {
    const std::string& text = field.string();
    const auto bytes = decode_base64(text);
    if (!bytes || bytes->size() < 4) field.refuse("a sentencepiece table in base64");
    const std::size_t size = unit_at(*bytes, 0);
    if (size == 0 || size % 4 != 0 || size > bytes->size() - 4) field.refuse("a sentencepiece table in base64");
    units_.resize(size / 4);
    for (std::size_t i = 0; i < units_.size(); ++i) units_[i] = unit_at(*bytes, 4 + 4 * i);
    strings_ = bytes->substr(4 + size);
  }

  /// Offsets up to `begin` belong to the beginning of the whole text, on entry and on return; none if it is negative.
  std::string operator()(std::string_view text, std::ptrdiff_t& begin) const {
    Alignment alignment(text, begin);
    std::string result;
    result.reserve(text.size());
    const auto replace = [&](std::string_view part, std::string_view other) {
      alignment.replace(part, other, result.size());
      result += other;
    };
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = cluster_end(text, at);
      if (end - at < 6) {
        const std::string_view cluster = text.substr(at, end - at);
        if (const auto other = find(cluster)) {
          replace(cluster, *other);
          at = end;
          continue;
        }
      }
      while (at < end) {
        const std::string_view character = text.substr(at, utf8_unit(text, at).bytes);
        replace(character, find(character).value_or(character));
        at += character.size();
      }
    }
    begin = alignment.finish();
    return result;
  }

  /// Upper bound of the factor by which a text can grow.
  std::size_t growth() const {
    std::size_t longest = 0, growth = 1, begin = 0;
    for (std::size_t i = 0; i <= strings_.size(); ++i) {
      if (i < strings_.size() && strings_[i] != '\0') continue;
      longest = std::max(longest, i - begin);
      begin = i + 1;
    }
    for (std::size_t i = 1; i < 128; ++i) {
      const char c = static_cast<char>(i);
      growth = std::max(growth, find({&c, 1}).value_or("").size());
    }
    return std::max(growth, (longest + 1) / 2);  // all others replace two bytes or more
  }

 private:
  static std::uint32_t unit_at(std::string_view bytes, std::size_t at) {
    std::uint32_t unit = 0;
    for (std::size_t i = 0; i < 4; ++i)
      unit |= static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[at + i])) << 8 * i;
    return unit;
  }

  /// Tracks which output characters belong to the beginning, as the reference aligns them: characters of a part and of
  /// its replacement are paired in order; excess characters of the replacement align with the part's last one, and
  /// excess characters of the part with the last output character.
  class Alignment {
   public:
    Alignment(std::string_view text, std::ptrdiff_t begin)
        : begins_(begin < 0 ? 0 : count_units(text.data(), text.data() + begin) + 1) {}

    void replace(std::string_view part, std::string_view other, std::size_t offset) {
      if (taken_ > begins_ || begins_ == 0) return;
      std::size_t old = count_units(part.data(), part.data() + part.size());
      for (std::size_t at = 0; at < other.size(); at += utf8_unit(other, at).bytes) {
        commit();
        last_ = static_cast<std::ptrdiff_t>(offset + at);
        takes_ = old > 0 ? 1 : 0;
        old -= takes_;
      }
      if (last_ >= 0) takes_ += old;
    }
    std::ptrdiff_t finish() {
      commit();
      return begin_;
    }

   private:
    void commit() {
      if (last_ >= 0 && begins_ > 0 && taken_ + (takes_ > 0 ? 1 : 0) <= begins_) begin_ = last_;
      taken_ += takes_;
      last_ = -1;
    }

    std::size_t begins_;        // number of characters of the text's beginning
    std::size_t taken_ = 0;     // source characters of the output so far
    std::ptrdiff_t last_ = -1;  // offset of the last output character
    std::size_t takes_ = 0;     // its source characters: none for an inserted one
    std::ptrdiff_t begin_ = -1;
  };

  static std::size_t offset_of(std::uint32_t unit) { return (unit >> 10) << ((unit & 1u << 9) >> 6); }

  static std::size_t cluster_end(std::string_view text, std::size_t at) {
    Utf8Unit unit = utf8_unit(text, at);
    utf8proc_int32_t state = 0;
    while (unit.code != no_character && at + unit.bytes < text.size()) {
      const Utf8Unit next = utf8_unit(text, at + unit.bytes);
      if (next.code == no_character ||
          utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(unit.code),
                                           static_cast<utf8proc_int32_t>(next.code), &state)) {
        break;
      }
      at += unit.bytes;
      unit = next;
    }
    return at + unit.bytes;
  }

  /// The replacement of the shortest string of the table that is a prefix of the text.
  std::optional<std::string_view> find(std::string_view text) const {
    std::size_t at = offset_of(units_[0]);
    for (const char c : text) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte == 0) break;
      at ^= byte;
      if (at >= units_.size() || (units_[at] & (1u << 31 | 0xff)) != byte) return std::nullopt;
      const bool is_end = (units_[at] >> 8 & 1) != 0;
      at ^= offset_of(units_[at]);
      if (!is_end) continue;
      const std::size_t begin = at < units_.size() ? units_[at] & ~(1u << 31) : strings_.size();
      if (begin > strings_.size()) return std::string_view();
      const std::string_view rest = std::string_view(strings_).substr(begin);
      return rest.substr(0, rest.find('\0'));
    }
    return std::nullopt;
  }

  std::vector<std::uint32_t> units_;
  std::string strings_;  // zero-terminated
};

}  // namespace moe_mamba::inline v0_2::detail
