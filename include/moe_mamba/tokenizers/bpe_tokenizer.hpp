#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moe_mamba/core/check.hpp"
#include "moe_mamba/io/mapped_file.hpp"
#include "moe_mamba/text/tokenizer.hpp"
#include "moe_mamba/tokenizers/added_tokens.hpp"
#include "moe_mamba/tokenizers/bpe.hpp"
#include "moe_mamba/tokenizers/normalizer.hpp"
#include "moe_mamba/tokenizers/post_processor.hpp"
#include "moe_mamba/tokenizers/pre_tokenizer.hpp"
#include "moe_mamba/tokenizers/token_decoder.hpp"
#include "moe_mamba/tokenizers/tokenizer_file.hpp"

namespace moe_mamba {

/// A byte-pair tokenizer as the file tokenizer.json of Hugging Face's tokenizers describes it, which gives the same
/// tokens. A value that does not change: any number of threads may use one at a time.
///
/// Text is UTF-8. Bytes in it that are not count as characters without any property, each by itself; a byte-level
/// tokenizer, and one that falls back to bytes, gives them back in decode().
class BpeTokenizer {
 public:
  /// Reads the contents of a file; `file` names it in errors. Throws std::runtime_error that names the field, its value
  /// and what is allowed, where something is wrong or not supported.
  BpeTokenizer(std::span<const std::byte> contents, const std::string& file);
  BpeTokenizer(const BpeTokenizer&) = default;
  BpeTokenizer(BpeTokenizer&&) = default;
  BpeTokenizer& operator=(const BpeTokenizer& other) { return *this = BpeTokenizer(other); }
  BpeTokenizer& operator=(BpeTokenizer&&) = default;
  ~BpeTokenizer() = default;

  /// The tokens of a text. Throws std::invalid_argument for a character that the tokenizer has no token for, and for a
  /// text of 2 GiB or more.
  std::vector<Token> encode(std::string_view text, EncodeOptions options = {}) const {
    WordCache cache;
    return encode(text, cache, options);
  }

  /// The same, where the cache remembers words from one call to the next. Throws std::logic_error, before any work, where
  /// another thread is in a call with this cache.
  std::vector<Token> encode(std::string_view text, WordCache& cache, EncodeOptions options = {}) const;

  /// The text of tokens, as bytes. Throws std::out_of_range for a number that is no token.
  std::string decode(std::span<const Token> tokens, DecodeOptions options = {}) const {
    std::string text;
    Decoding state = decoding(options);
    for (const Token token : tokens) append(state, token, text);
    return text;
  }

  /// A decoding that goes on: what is yet to be taken from the begin, and what comes before a next token if there is one.
  struct Decoding {
    bool skip_special_tokens = true;
    detail::TokenDecoder::State state;
  };
  Decoding decoding(DecodeOptions options = {}) const { return {options.skip_special_tokens, decoder_.state()}; }

  /// Appends what the next token says. Throws as decode() does, with the decoding and the text as they were.
  void append(Decoding& decoding, Token token, std::string& text) const;

  /// One more than the largest token.
  Index vocabulary() const { return static_cast<Index>(entries_.size()); }

  /// The token that the file writes like this, if there is one: token("<|endoftext|>").
  std::optional<Token> token(std::string_view written) const {
    const std::uint32_t index = written_.find(written);
    return index == detail::StringTable::none ? std::nullopt : std::optional(ids_[index]);
  }

  /// Whether a number is a token: there may be gaps.
  bool contains(Token token) const { return token >= 0 && token < vocabulary() && entry(token).known; }

  /// Whether a token is one of the special ones.
  bool is_special(Token token) const { return contains(token) && entry(token).special; }

 private:
  /// A part of texts_.
  struct Range {
    std::size_t begin = 0, end = 0;
  };
  struct Entry {
    bool known = false, special = false;
    Range written;  // as the decoder begins with it
    Range text;     // what it says anywhere but at the begin
  };

  const Entry& entry(Token token) const { return entries_[static_cast<std::size_t>(token)]; }
  std::string_view text_in(Range range) const { return {texts_.data() + range.begin, range.end - range.begin}; }
  Range keep(std::string_view text) {
    texts_ += text;
    return {texts_.size() - text.size(), texts_.size()};
  }
  void write(Entry& token, std::string_view written) {
    token.written = keep(written);
    const std::string text = decoder_(written, false);
    token.text = text == written ? token.written : keep(text);
  }
  template <class Field>
  void add_entry(const Field& field, std::string_view written, Token id);
  void read_added_tokens(const detail::JsonField& field, std::size_t limit);
  void encode_piece(std::string_view text, std::size_t begin, std::size_t end, WordCache& cache,
                    std::vector<Token>& tokens) const;
  void encode_word(std::string_view word, WordCache& cache, std::vector<Token>& tokens) const;
  void encode_part(std::string_view word, WordCache& cache, std::vector<Token>& tokens) const;

  [[noreturn]] void refuse_character(std::string_view text, std::size_t begin, std::string_view normalized,
                                     const detail::UnknownCharacter& unknown) const;

  detail::Normalizer normalizer_;
  detail::PreTokenizer pre_tokenizer_;
  std::shared_ptr<const detail::BytePairEncoding> model_;
  detail::TokenDecoder decoder_;
  detail::AddedTokens added_;             // found in the text as it comes
  detail::AddedTokens added_normalized_;  // found in what the normalizer makes of it
  detail::PostProcessor post_processor_;
  detail::StringTable written_;
  std::vector<Token> ids_;  // of what is in written_
  std::vector<Entry> entries_;
  std::string texts_;  // of all tokens
};

/// Reads a file tokenizer.json. Throws std::runtime_error as BpeTokenizer does, and where the file cannot be read.
inline BpeTokenizer load_tokenizer(const std::filesystem::path& path) {
  return BpeTokenizer(MappedFile(path).bytes(), path.string());
}

inline BpeTokenizer::BpeTokenizer(std::span<const std::byte> bytes, const std::string& file)
    : decoder_(detail::JsonField(file, "decoder", nullptr)) {
  detail::TokenizerFile contents = detail::read_tokenizer_file(bytes, file);
  const detail::JsonField root(file, "", &contents.rest);
  if (!root["version"].is_null()) root["version"].choice({"1.0"});
  normalizer_ = detail::Normalizer(root["normalizer"]);
  pre_tokenizer_ = detail::PreTokenizer(root["pre_tokenizer"]);
  decoder_ = detail::TokenDecoder(root["decoder"]);

  // Gaps between ids are allowed, but not so large that a small file takes much memory.
  const std::size_t added = root["added_tokens"].is_null() ? 0 : root["added_tokens"].elements().size();
  const std::size_t limit = 2 * (contents.ids.size() + added) + 65535;
  written_ = contents.vocabulary;
  ids_ = contents.ids;
  const auto place = [&](Token id) { return std::min(static_cast<std::size_t>(id), limit); };
  if (const auto last = std::max_element(ids_.begin(), ids_.end()); last != ids_.end())
    entries_.resize(place(*last) + 1);
  for (std::size_t i = 0; i < contents.ids.size(); ++i) {
    // In whatever order the ids come, their entries are on their way from memory.
    if (constexpr std::size_t ahead = 8; i + ahead < ids_.size()) {
      __builtin_prefetch(entries_.data() + place(ids_[i + ahead]), 1);
    }
    const auto field = [&] {
      return detail::JsonField(file, "model.vocab " + detail::in_quotes(contents.vocabulary[i]), nullptr);
    };
    if (static_cast<std::size_t>(contents.ids[i]) > limit) {
      field().refuse(std::to_string(contents.ids[i]), "0 to " + std::to_string(limit) + " in so small a vocabulary");
    }
    add_entry(field, contents.vocabulary[i], contents.ids[i]);
  }
  read_added_tokens(root["added_tokens"], limit);
  post_processor_ = detail::PostProcessor(root["post_processor"], [&](Token id) { return contains(id); });
  model_ = std::make_shared<const detail::BytePairEncoding>(contents, file, pre_tokenizer_.byte_level());
}

/// Of the field, which field() gives, a message tells where another token has the id.
template <class Field>
void BpeTokenizer::add_entry(const Field& field, std::string_view written, Token id) {
  const auto index = static_cast<std::size_t>(id);
  if (index >= entries_.size()) entries_.resize(index + 1);
  if (entries_[index].known) {
    field().refuse("id " + std::to_string(id),
                   "an id of its own; " + detail::in_quotes(text_in(entries_[index].written)) + " has it");
  }
  entries_[index].known = true;
  write(entries_[index], written);
}

inline void BpeTokenizer::read_added_tokens(const detail::JsonField& field, std::size_t limit) {
  if (field.is_null()) return;
  detail::StringTable seen, special;
  std::vector<Token> added;
  for (const detail::JsonField& item : field.elements()) {
    const std::string& content = item["content"].string();
    const auto id = static_cast<Token>(item["id"].integer(static_cast<std::int64_t>(limit)));
    if (content.empty()) continue;
    if (content.size() > detail::AddedTokens::longest) item["content"].refuse("at most 1024 bytes");
    if (!seen.insert(content).second) item["content"].refuse("each added token once");
    if (const auto known = token(content); !known) {
      add_entry([&] { return item["id"]; }, content, id);
      written_.insert(content);
      ids_.push_back(id);
    } else if (*known != id) {
      item["id"].refuse(std::to_string(*known) + ", which model.vocab gives this token");
    }
    added.push_back(id);
    if (item["special"].boolean_or(false)) special.insert(content);

    const bool normalized = item["normalized"].boolean_or(false);
    detail::AddedToken search{id, content, item["single_word"].boolean_or(false), item["lstrip"].boolean_or(false),
                              item["rstrip"].boolean_or(false)};
    if (normalized && !normalizer_.empty()) {
      search.text = normalizer_(content);
      // It is kept, and a small file must not take much memory.
      const std::size_t most = 4 * content.size() + 64;
      if (search.text.empty() || search.text.size() > most) {
        item["content"].refuse("what the normalizer makes 1 to " + std::to_string(most) + " bytes of");
      }
      // The reference shows such a token as it is looked for.
      write(entries_[static_cast<std::size_t>(id)], search.text);
    }
    if (!(normalized ? added_normalized_ : added_).add(std::move(search))) {
      item["content"].refuse("what the normalizer makes of no other added token");
    }
  }
  for (const Token id : added) {
    Entry& entry = entries_[static_cast<std::size_t>(id)];
    entry.special = special.find(text_in(entry.written)) != detail::StringTable::none;
  }
}

inline std::vector<Token> BpeTokenizer::encode(std::string_view text, WordCache& cache, EncodeOptions options) const {
  require(text.size() < (std::size_t{1} << 31), "text.size()", text.size(), "less than 2147483648 bytes");
  const ExclusiveCall call(cache.in_call_, "word cache");
  if (cache.owner_ != model_) {
    cache = WordCache();
    cache.owner_ = model_;
  }
  std::vector<Token> tokens;
  tokens.reserve(text.size() / 4 + 8);
  if (options.special_tokens) tokens = post_processor_.before();
  added_.split(text, [&](std::size_t begin, std::size_t end, const detail::AddedToken* token) {
    if (token != nullptr) {
      tokens.push_back(token->id);
    } else {
      encode_piece(text, begin, end, cache, tokens);
    }
  });
  if (options.special_tokens) {
    tokens.insert(tokens.end(), post_processor_.after().begin(), post_processor_.after().end());
  }
  return tokens;
}

inline void BpeTokenizer::encode_piece(std::string_view text, std::size_t begin, std::size_t end, WordCache& cache,
                                       std::vector<Token>& tokens) const {
  std::string_view piece = text.substr(begin, end - begin);
  std::string normalized;
  std::ptrdiff_t at_begin = begin == 0 ? 0 : -1;
  if (!normalizer_.empty()) piece = normalized = normalizer_(piece, at_begin);
  try {
    added_normalized_.split(piece, [&](std::size_t from, std::size_t to, const detail::AddedToken* token) {
      if (token != nullptr) {
        tokens.push_back(token->id);
        return;
      }
      pre_tokenizer_.split(piece.substr(from, to - from), at_begin - static_cast<std::ptrdiff_t>(from),
                           [&](std::string_view word) { encode_word(word, cache, tokens); });
    });
  } catch (const detail::UnknownCharacter& unknown) {
    refuse_character(text, begin, piece, unknown);
  }
}

/// Where a character without a token stands: in the text, or in what the normalizer made of it from `begin` on, if that
/// is something else.
inline void BpeTokenizer::refuse_character(std::string_view text, std::size_t begin, std::string_view normalized,
                                           const detail::UnknownCharacter& unknown) const {
  const std::string_view character =
      detail::unit_around(normalized, static_cast<std::size_t>(unknown.at - normalized.data()));
  const auto at = static_cast<std::size_t>(character.data() - normalized.data()), end = at + character.size();
  const bool same = text.substr(begin).substr(0, end) == normalized.substr(0, end);
  std::string place = " at byte " + std::to_string(same ? begin + at : at);
  if (!same) place += " of what the normalizer makes of it from byte " + std::to_string(begin) + " on";
  // Such as what stands for a space, or one more in front of the text.
  if (unknown.unit != character) place = ", which the pre-tokenizer writes for " + detail::in_quotes(character) + place;
  throw std::invalid_argument(error_text("text", detail::in_quotes(unknown.unit) + place,
                                         "characters that there are tokens for, as " + model_->no_unknown_token()));
}

inline void BpeTokenizer::encode_word(std::string_view word, WordCache& cache, std::vector<Token>& tokens) const {
  while (word.size() > detail::BytePairEncoding::long_word) {
    const std::size_t end = model_->part_end(word);
    if (end == word.size()) break;
    encode_part(word.substr(0, end), cache, tokens);
    word.remove_prefix(end);
  }
  encode_part(word, cache, tokens);
}

inline void BpeTokenizer::encode_part(std::string_view word, WordCache& cache, std::vector<Token>& tokens) const {
  if (const Token whole = model_->whole(word); whole >= 0) return tokens.push_back(whole);
  const bool keep = word.size() <= WordCache::longest_word;
  if (const std::uint32_t known = keep ? cache.words_.find(word) : detail::StringTable::none;
      known != detail::StringTable::none) {
    const Token* all = cache.tokens_.data();
    const std::size_t begin = known == 0 ? 0 : cache.ends_[known - 1];
    tokens.insert(tokens.end(), all + begin, all + cache.ends_[known]);
    return;
  }
  model_->encode(word, cache.symbols_, cache.numbers_, cache.queue_);
  tokens.insert(tokens.end(), cache.symbols_.begin(), cache.symbols_.end());
  if (keep && cache.words_.size() < WordCache::most_words) cache.keep(word);
}

inline void BpeTokenizer::append(Decoding& decoding, Token token, std::string& text) const {
  require_range(contains(token), "token", token, [&] {
    return "0 to " + std::to_string(vocabulary() - 1) + ", without the gaps that the vocabulary may have";
  });
  const Entry& found = entry(token);
  if (decoding.skip_special_tokens && found.special) return;
  detail::TokenDecoder::State state = decoding.state;
  const Token previous = std::exchange(state.previous, token);
  std::string piece;
  const std::string_view written = text_in(found.written);
  if (!decoder_.merges_repeated() || previous < 0 || text_in(entry(previous).written) != written) {
    std::string at_begin;
    const bool differs = state.first && decoder_.first_differs();
    if (differs) at_begin = decoder_(written, true);
    piece = decoder_.join(state, differs ? std::string_view(at_begin) : text_in(found.text));
  }
  text += piece;
  decoding.state = state;
}

}  // namespace moe_mamba
