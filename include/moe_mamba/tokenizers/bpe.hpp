#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moe_mamba/core/exclusive_call.hpp"
#include "moe_mamba/tokenizers/byte_alphabet.hpp"
#include "moe_mamba/tokenizers/tables.hpp"
#include "moe_mamba/tokenizers/tokenizer_file.hpp"
#include "moe_mamba/tokenizers/unknown_character.hpp"

/// Byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909): a word starts as a sequence of characters, or bytes. As
/// long as two adjacent symbols form a merge, the merge with the lowest rank is applied, the leftmost first.
namespace moe_mamba::inline v0_2 {

/// A cache of words and their tokens. It belongs to one tokenizer and one thread at a time: keep one per thread that
/// encodes many texts. A call with a cache that another call is using throws std::logic_error. A cache stops growing at
/// 131072 words. A call that throws leaves it consistent.
class WordCache {
 public:
  WordCache() = default;
  WordCache(const WordCache&) = default;
  WordCache(WordCache&&) = default;
  WordCache& operator=(const WordCache& other) { return *this = WordCache(other); }
  WordCache& operator=(WordCache&&) = default;
  ~WordCache() = default;

 private:
  friend class BpeTokenizer;
  static constexpr std::size_t most_words = 1u << 17, longest_word = 128;

  /// Stores symbols_ as the tokens of a new word.
  void keep(std::string_view word) {
    // Anything after the last word was left by a call that ran out of memory.
    ends_.resize(words_.size());
    tokens_.resize(ends_.empty() ? 0 : ends_.back());
    tokens_.insert(tokens_.end(), symbols_.begin(), symbols_.end());
    ends_.push_back(tokens_.size());
    words_.insert(word);
  }

  ExclusiveCall::Flag in_call_;
  std::shared_ptr<const void> owner_;  // the model that encoded the words
  detail::StringTable words_;
  std::vector<Token> tokens_;
  std::vector<std::size_t> ends_;  // of each word's tokens
  // Scratch memory for encoding a word.
  std::vector<Token> symbols_;
  std::vector<std::uint32_t> numbers_;
  std::vector<std::uint64_t> queue_;
};

namespace detail {

class BytePairEncoding {
 public:
  /// The model of a file. `byte_level`: words are bytes.
  BytePairEncoding(const TokenizerFile& contents, const std::string& file, bool byte_level);

  /// The token of a word that encodes to a single token; -1 for all other words.
  Token whole(std::string_view word) const {
    const std::uint32_t index = words_.find(word);
    return index == StringTable::none ? -1 : whole_[index];
  }

  /// The tokens of a word. Throws UnknownCharacter for a character without a token if the model has no unknown token.
  void encode(std::string_view word, std::vector<Token>& symbols, std::vector<std::uint32_t>& numbers,
              std::vector<std::uint64_t>& queue) const {
    std::size_t unknown = 0;
    if (!start(word, symbols, unknown)) {
      throw UnknownCharacter{word.data() + unknown, std::string(unit_around(word, unknown))};
    }
    if (symbols.size() <= few) {
      merge_few(symbols, numbers);
    } else {
      merge_many(symbols, numbers, queue);
    }
  }

  /// Why there is no unknown token, for messages.
  std::string no_unknown_token() const {
    return unknown_name_.empty() ? "this tokenizer has no unk_token"
                                 : "its unk_token " + in_quotes(unknown_name_) + " is not in the vocabulary";
  }

  /// Words longer than this are split with part_end().
  static constexpr std::size_t long_word = 64;

  /// The end of the first part of a word that can be encoded independently: it lies between two characters that are
  /// adjacent in no merge result. For tokenizers without a pre-tokenizer, whose words are whole texts; their merges
  /// rarely cross a space.
  std::size_t part_end(std::string_view word) const {
    if (!splits_) return word.size();
    std::uint32_t before = PairTable::none;
    for (std::size_t at = 0; at < word.size();) {
      const auto [code, bytes] = unit_at(word, at);
      const bool known = is_known(code);
      if (known && before != PairTable::none && neighbours_.find(before, code).first == PairTable::none) return at;
      before = known ? code : PairTable::none;
      at += bytes;
    }
    return word.size();
  }

 private:
  static constexpr std::size_t few = 48;

  struct Unit {
    std::uint32_t code;
    std::size_t bytes;
  };
  Unit unit_at(std::string_view word, std::size_t at) const {
    if (byte_level_) return {static_cast<unsigned char>(word[at]), 1};
    const Utf8Unit unit = utf8_unit(word, at);
    return {static_cast<std::uint32_t>(unit.code), unit.bytes};
  }
  // Position of a character in a word, by the affixes that are added to it there; 0 for none.
  static constexpr std::uint32_t Inside = 1, Last = 2;
  std::uint32_t position_of(std::size_t at, bool is_last) const {
    return (at > 0 && !prefix_.empty() ? Inside : 0) | (is_last && !suffix_.empty() ? Last : 0);
  }
  /// The token of a byte or character at a position, -1 if there is none.
  Token token_of(std::uint32_t position, std::uint32_t code) const {
    if (byte_level_) return bytes_[position][code];
    return code == static_cast<std::uint32_t>(no_character) ? -1
                                                            : static_cast<Token>(units_.find(position, code).first);
  }
  bool is_known(std::uint32_t code) const { return token_of(0, code) >= 0; }

  void add_units(std::string_view text, Token id);
  bool add_fallback(std::string_view unit, std::uint32_t position, std::vector<Token>& symbols) const;
  bool start(std::string_view word, std::vector<Token>& symbols, std::size_t& unknown) const;
  PairTable::Value merge(Token left, Token right) const {
    return merges_.find(static_cast<std::uint32_t>(left), static_cast<std::uint32_t>(right));
  }
  void merge_few(std::vector<Token>& symbols, std::vector<std::uint32_t>& ranks) const;
  void merge_many(std::vector<Token>& symbols, std::vector<std::uint32_t>& links,
                  std::vector<std::uint64_t>& queue) const;
  void read_merges(const TokenizerFile& contents, const std::string& file);
  void find_wholes(bool all);

  bool byte_level_, byte_fallback_, fuse_unknown_;
  bool splits_ = true;  // false if a part might be a token that no merge produces
  Token unknown_ = -1;
  std::string unknown_name_;
  std::string prefix_, suffix_;  // added before all characters of a word but the first, and after the last
  std::array<std::array<Token, 256>, 4> bytes_;   // if byte_level_: the token of each byte, by position
  PairTable units_;                               // otherwise: (position, character) to (token, 0)
  std::array<std::vector<Token>, 256> fallback_;  // the tokens that a byte falls back to, empty if some are missing
  std::vector<Token> prefix_fallback_, suffix_fallback_;
  PairTable neighbours_;               // pairs of characters that are adjacent in merge results
  PairTable merges_;                   // (left, right) to (rank, token)
  StringTable words_;                  // the tokens' texts, as bytes if byte_level_
  std::vector<Token> tokens_, whole_;  // per word: its token; the same if the word encodes to it, else -1
};

inline BytePairEncoding::BytePairEncoding(const TokenizerFile& contents, const std::string& file, bool byte_level)
    : byte_level_(byte_level) {
  const JsonField model = JsonField(file, "", &contents.rest)["model"];
  model["dropout"].require_zero_or_null("null or 0, as encoding is deterministic");
  prefix_ = model["continuing_subword_prefix"].string_or("");
  suffix_ = model["end_of_word_suffix"].string_or("");
  for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (model[name].string_or("").size() > 64) model[name].refuse("at most 64 bytes");
  }
  for (auto& tokens : bytes_) tokens.fill(-1);
  byte_fallback_ = model["byte_fallback"].boolean_or(false);
  fuse_unknown_ = model["fuse_unk"].boolean_or(false);
  const auto id_of = [&](std::string_view text) {
    const std::uint32_t index = contents.vocabulary.find(text);
    return index == StringTable::none ? Token{-1} : contents.ids[index];
  };
  unknown_name_ = model["unk_token"].string_or("");
  if (!unknown_name_.empty()) unknown_ = id_of(unknown_name_);

  // The tokens <0x00> to <0xFF> of the bytes of a string, none if some are missing.
  const auto fallback_of = [&](std::string_view text) {
    constexpr std::string_view digits = "0123456789ABCDEF";
    std::vector<Token> tokens;
    for (const char c : text) {
      const auto value = static_cast<unsigned char>(c);
      tokens.push_back(id_of(std::string("<0x") + digits[value / 16] + digits[value % 16] + '>'));
    }
    if (std::count(tokens.begin(), tokens.end(), -1) > 0) tokens.clear();
    return tokens;
  };
  for (std::size_t byte = 0; byte_fallback_ && byte < 256; ++byte) {
    // If words are bytes, a byte falls back as the character that represents it.
    std::string unit(1, static_cast<char>(static_cast<unsigned char>(byte)));
    if (byte_level) unit = written_bytes(unit);
    fallback_[byte] = fallback_of(unit);
  }
  prefix_fallback_ = fallback_of(prefix_);
  suffix_fallback_ = fallback_of(suffix_);
  ByteStrings words;
  for (std::size_t i = 0; i < contents.ids.size(); ++i) {
    const std::string_view text = contents.vocabulary[i];
    add_units(text, contents.ids[i]);
    const auto bytes = byte_level ? bytes_of_token(text) : std::string(text);
    if (!bytes || bytes->empty()) continue;  // no word encodes to this token
    words.push_back(*bytes);
    tokens_.push_back(contents.ids[i]);
  }
  words_ = StringTable(std::move(words));
  read_merges(contents, file);
  const bool ignore_merges = model["ignore_merges"].boolean_or(false);
  splits_ = !ignore_merges && prefix_.empty() && suffix_.empty();
  find_wholes(ignore_merges);
}

/// Registers a token that is a single character or byte in one of the four positions of a word.
inline void BytePairEncoding::add_units(std::string_view text, Token id) {
  for (const std::uint32_t position : {0u, Inside, Last, Inside | Last}) {
    if (((position & Inside) != 0 && prefix_.empty()) || ((position & Last) != 0 && suffix_.empty())) continue;
    std::string_view before, after;
    if ((position & Inside) != 0) before = prefix_;
    if ((position & Last) != 0) after = suffix_;
    if (text.size() <= before.size() + after.size() || !text.starts_with(before) || !text.ends_with(after)) continue;
    const std::string_view written = text.substr(before.size(), text.size() - before.size() - after.size());
    const Utf8Unit unit = utf8_unit(written);
    if (unit.bytes != written.size()) continue;
    if (!byte_level_) {
      units_.set(position, static_cast<std::uint32_t>(unit.code), {static_cast<std::uint32_t>(id), 0});
    } else if (unit.code < character_bytes.size() && character_bytes[unit.code] >= 0) {
      bytes_[position][static_cast<std::size_t>(character_bytes[unit.code])] = id;
    }
  }
}

inline void BytePairEncoding::read_merges(const TokenizerFile& contents, const std::string& file) {
  const auto id_of = [&](std::size_t merge, std::string_view text) {
    const std::uint32_t index = contents.vocabulary.find(text);
    if (index != StringTable::none) return static_cast<std::uint32_t>(contents.ids[index]);
    throw_content_error(file, "model.merges[" + std::to_string(merge) + "]", "a merge with " + in_quotes(text),
                        "tokens of model.vocab");
  };
  std::string whole;
  for (std::size_t i = 0; i < contents.part_ends.size() / 2; ++i) {
    const std::string_view left = contents.part(2 * i), right = contents.part(2 * i + 1);
    whole.assign(left);
    whole += right.substr(std::min(prefix_.size(), right.size()));
    const auto bytes = byte_level_ ? bytes_of_token(whole) : std::optional(whole);
    std::uint32_t before = PairTable::none;
    for (std::size_t at = 0; bytes && at < bytes->size();) {
      const Unit unit = unit_at(*bytes, at);
      if (before != PairTable::none) neighbours_.set(before, unit.code, {0, 0});
      before = unit.code;
      at += unit.bytes;
    }
    merges_.set(id_of(i, left), id_of(i, right), {static_cast<std::uint32_t>(i), id_of(i, whole)});
  }
}

/// Finds the texts that encode to their own token: all of them if the model ignores merges for whole words. Otherwise
/// all but long ones, which are rarely words, are encoded to find out.
inline void BytePairEncoding::find_wholes(bool all) {
  whole_.assign(tokens_.size(), -1);
  std::vector<Token> symbols;
  std::vector<std::uint32_t> numbers;
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    std::size_t unknown = 0;
    if (!all) {
      if (words_[i].size() > few || !start(words_[i], symbols, unknown) || symbols.size() > few) continue;
      merge_few(symbols, numbers);
      if (symbols.size() != 1 || symbols[0] != tokens_[i]) continue;
    }
    whole_[i] = tokens_[i];
  }
}

/// The tokens of a word's characters or bytes. False if there is none for the one at `unknown`.
inline bool BytePairEncoding::start(std::string_view word, std::vector<Token>& symbols, std::size_t& unknown) const {
  symbols.clear();
  Token pending = -1;  // an unknown token that the next one may be fused with
  std::size_t bytes = 1;
  for (std::size_t at = 0; at < word.size(); at += bytes) {
    const Unit unit = unit_at(word, at);
    bytes = unit.bytes;
    const std::uint32_t position = position_of(at, at + bytes == word.size());
    if (const Token token = token_of(position, unit.code); token >= 0) {
      if (pending >= 0) symbols.push_back(std::exchange(pending, -1));
      symbols.push_back(token);
      continue;
    }
    if (add_fallback(word.substr(at, bytes), position, symbols)) continue;
    if (unknown_ < 0) {
      unknown = at;
      return false;
    }
    if (pending >= 0 && !fuse_unknown_) symbols.push_back(pending);
    pending = unknown_;
  }
  if (pending >= 0) symbols.push_back(pending);
  return true;
}

/// Appends the tokens of the bytes of a character, with the affixes of its position. False if some are missing.
inline bool BytePairEncoding::add_fallback(std::string_view unit, std::uint32_t position,
                                           std::vector<Token>& symbols) const {
  const auto is_missing = [&](char c) { return fallback_[static_cast<unsigned char>(c)].empty(); };
  const bool prefixed = (position & Inside) != 0 && !prefix_.empty();
  const bool suffixed = (position & Last) != 0 && !suffix_.empty();
  if (std::any_of(unit.begin(), unit.end(), is_missing) || (prefixed && prefix_fallback_.empty()) ||
      (suffixed && suffix_fallback_.empty())) {
    return false;
  }
  const auto append = [&](const std::vector<Token>& tokens) {
    symbols.insert(symbols.end(), tokens.begin(), tokens.end());
  };
  if (prefixed) append(prefix_fallback_);
  for (const char c : unit) append(fallback_[static_cast<unsigned char>(c)]);
  if (suffixed) append(suffix_fallback_);
  return true;
}

/// For short words: a linear search for the lowest rank is faster than a priority queue.
inline void BytePairEncoding::merge_few(std::vector<Token>& symbols, std::vector<std::uint32_t>& ranks) const {
  std::size_t count = symbols.size();
  if (count < 2) return;
  ranks.resize(2 * few);
  std::uint32_t* rank = ranks.data();          // of the pair that begins at each symbol
  std::uint32_t* merged = ranks.data() + few;  // the token that it merges to
  const auto look_up = [&](std::size_t i) {
    const PairTable::Value found = merge(symbols[i], symbols[i + 1]);
    rank[i] = found.first;
    merged[i] = found.second;
  };
  for (std::size_t i = 0; i + 1 < count; ++i) look_up(i);
  for (;;) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < count; ++i) best = rank[i] < rank[best] ? i : best;
    if (count < 2 || rank[best] == PairTable::none) break;
    symbols[best] = static_cast<Token>(merged[best]);
    for (std::size_t i = best + 1; i + 1 < count; ++i) {
      symbols[i] = symbols[i + 1];
      rank[i] = rank[i + 1];
      merged[i] = merged[i + 1];
    }
    --count;
    if (best > 0) look_up(best - 1);
    if (best + 1 < count) look_up(best);
  }
  symbols.resize(count);
}

/// For long words: a priority queue of pairs by rank and position, and the symbols as a linked list. Stale queue
/// entries are skipped.
inline void BytePairEncoding::merge_many(std::vector<Token>& symbols, std::vector<std::uint32_t>& links,
                                         std::vector<std::uint64_t>& queue) const {
  constexpr std::uint32_t none = PairTable::none;
  const auto count = static_cast<std::uint32_t>(symbols.size());
  links.resize(std::size_t{2} * count);
  std::uint32_t *previous = links.data(), *next = links.data() + count;
  for (std::uint32_t i = 0; i < count; ++i) {
    previous[i] = i == 0 ? none : i - 1;
    next[i] = i + 1 == count ? none : i + 1;
  }
  queue.clear();
  const auto offer = [&](std::uint32_t at) {
    const std::uint32_t rank = merge(symbols[at], symbols[next[at]]).first;
    if (rank == none) return false;
    queue.push_back(static_cast<std::uint64_t>(rank) << 32 | at);
    return true;
  };
  const auto later = [](std::uint64_t a, std::uint64_t b) { return a > b; };
  for (std::uint32_t i = 0; i + 1 < count; ++i) offer(i);
  std::make_heap(queue.begin(), queue.end(), later);
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), later);
    const std::uint64_t top = queue.back();
    queue.pop_back();
    const auto at = static_cast<std::uint32_t>(top);
    const std::uint32_t right = next[at];
    if (symbols[at] < 0 || right == none) continue;
    const PairTable::Value found = merge(symbols[at], symbols[right]);
    if (found.first != top >> 32) continue;
    symbols[at] = static_cast<Token>(found.second);
    symbols[right] = -1;
    next[at] = next[right];
    if (next[at] != none) previous[next[at]] = at;
    if (previous[at] != none && offer(previous[at])) std::push_heap(queue.begin(), queue.end(), later);
    if (next[at] != none && offer(at)) std::push_heap(queue.begin(), queue.end(), later);
  }
  std::erase(symbols, -1);
}

}  // namespace detail
}  // namespace moe_mamba::inline v0_2
