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
#include "moe_mamba/tokenizers/merges.hpp"
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
  detail::PairQueue queue_;
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
              PairQueue& queue) const {
    std::size_t unknown = 0;
    if (!start(word, symbols, unknown)) {
      throw UnknownCharacter{word.data() + unknown, std::string(unit_around(word, unknown))};
    }
    merges_.apply(symbols, numbers, queue);
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
  void read_merges(const TokenizerFile& contents, const std::string& file);
  void add_neighbours(std::string_view token, std::vector<PairTable::Entry>& pairs) const;
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
  PairTable neighbours_;  // pairs of characters that are adjacent in merge results
  Merges merges_;
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
  words.reserve(contents.vocabulary.size(), contents.vocabulary.bytes());
  tokens_.reserve(contents.vocabulary.size());
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
  const std::size_t count = contents.part_ends.size() / 2;
  merges_ = Merges(count);
  ByteStrings texts;  // of a group of merges: the left token, the right one, and what they merge to
  std::vector<std::uint32_t> found;
  std::vector<PairTable::Entry> merges, neighbours;
  std::string whole;
  for (std::size_t begin = 0; begin < count; begin += table_group) {
    const std::size_t end = std::min(begin + table_group, count);
    texts.clear();
    merges.clear();
    neighbours.clear();
    for (std::size_t i = begin; i < end; ++i) {
      const std::string_view left = contents.part(2 * i), right = contents.part(2 * i + 1);
      whole.assign(left);
      whole += right.substr(std::min(prefix_.size(), right.size()));
      for (const std::string_view text : {left, right, std::string_view(whole)}) texts.push_back(text);
      add_neighbours(whole, neighbours);
    }
    contents.vocabulary.find_all(texts, found);
    for (std::size_t i = 0; i < found.size(); ++i) {
      if (found[i] == StringTable::none) {
        throw_content_error(file, "model.merges[" + std::to_string(begin + i / 3) + "]",
                            "a merge with " + in_quotes(texts[i]), "tokens of model.vocab");
      }
      found[i] = static_cast<std::uint32_t>(contents.ids[found[i]]);
    }
    for (std::size_t i = begin; i < end; ++i) {
      const std::uint32_t* ids = found.data() + 3 * (i - begin);
      merges.push_back({ids[0], ids[1], {static_cast<std::uint32_t>(i), ids[2]}});
    }
    merges_.add(merges);
    neighbours_.set_all(neighbours);
  }
}

/// Appends the pairs of adjacent characters in a token.
inline void BytePairEncoding::add_neighbours(std::string_view token, std::vector<PairTable::Entry>& pairs) const {
  const auto bytes = byte_level_ ? bytes_of_token(token) : std::optional(std::string(token));
  std::uint32_t before = PairTable::none;
  for (std::size_t at = 0; bytes && at < bytes->size();) {
    const Unit unit = unit_at(*bytes, at);
    if (before != PairTable::none) pairs.push_back({before, unit.code, {0, 0}});
    before = unit.code;
    at += unit.bytes;
  }
}

/// Finds the texts that encode to their own token: all of them if the model ignores merges for whole words. Otherwise
/// all but long ones, which are rarely words, are encoded to find out.
inline void BytePairEncoding::find_wholes(bool all) {
  if (all) {
    whole_ = tokens_;
    return;
  }
  whole_.assign(tokens_.size(), -1);
  struct Trial {
    ShortWord word;
    std::size_t index;
  };
  // Several words take turns, unless a processor's cache holds all merges.
  std::vector<Trial> trials(merges_.bytes() <= (1u << 20) ? 1 : 16);
  std::size_t next = 0;
  std::vector<Token> symbols;
  const auto start_next = [&](Trial& trial) {
    for (; next < tokens_.size(); ++next) {
      std::size_t unknown = 0;
      if (words_[next].size() > ShortWord::longest || !start(words_[next], symbols, unknown) ||
          symbols.size() > ShortWord::longest) {
        continue;
      }
      trial.word.start(merges_, symbols);
      trial.index = next++;
      return true;
    }
    return false;
  };
  std::erase_if(trials, [&](Trial& trial) { return !start_next(trial); });
  while (!trials.empty()) {
    std::erase_if(trials, [&](Trial& trial) {
      if (trial.word.step(merges_)) return false;
      const auto encoded = trial.word.symbols();
      if (encoded.size() == 1 && encoded[0] == tokens_[trial.index]) whole_[trial.index] = encoded[0];
      return !start_next(trial);
    });
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

}  // namespace detail
}  // namespace moe_mamba::inline v0_2
