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

namespace moe_mamba::inline v0_2 {

/// A byte-pair tokenizer described by a file tokenizer.json of Hugging Face's tokenizers package; it gives the same
/// tokens. Immutable: any number of threads may use one concurrently.
///
/// Text is UTF-8. Each invalid byte counts as a character of its own without any properties; a byte-level tokenizer,
/// and one with byte fallback, reproduces them in decode().
class BpeTokenizer {
 public:
  /// Parses the contents of a file; `file` names it in errors. Throws a std::runtime_error that names the field, its
  /// value and what is allowed if something is invalid or not supported.
  BpeTokenizer(std::span<const std::byte> contents, const std::string& file);
  BpeTokenizer(const BpeTokenizer&) = default;
  BpeTokenizer(BpeTokenizer&&) = default;
  BpeTokenizer& operator=(const BpeTokenizer& other) { return *this = BpeTokenizer(other); }
  BpeTokenizer& operator=(BpeTokenizer&&) = default;
  ~BpeTokenizer() = default;

  /// The tokens of a text. Throws std::invalid_argument for a character without a token, and for a text of 2 GiB or
  /// more.
  std::vector<Token> encode(std::string_view text, EncodeOptions options = {}) const {
    WordCache cache;
    return encode(text, cache, options);
  }

  /// The same with a cache that keeps words between calls. Throws std::logic_error, before any work, during another
  /// call with this cache.
  std::vector<Token> encode(std::string_view text, WordCache& cache, EncodeOptions options = {}) const;

  /// The text of tokens, as bytes. Throws std::out_of_range for an id that is not a token.
  std::string decode(std::span<const Token> tokens, DecodeOptions options = {}) const {
    std::string text;
    Decoding state = decoding(options);
    for (const Token token : tokens) append(state, token, text);
    return text;
  }

  /// The state of an incremental decoding.
  struct Decoding {
    bool skip_special_tokens = true;
    detail::TokenDecoder::State state;
  };
  Decoding decoding(DecodeOptions options = {}) const { return {options.skip_special_tokens, decoder_.state()}; }

  /// Appends the text of the next token. Throws as decode() does, leaving the decoding and the text unchanged.
  void append(Decoding& decoding, Token token, std::string& text) const;

  /// One more than the largest token id.
  Index vocabulary() const { return static_cast<Index>(entries_.size()); }

  /// The token with this text in the file, if there is one: token("<|endoftext|>").
  std::optional<Token> token(std::string_view written) const {
    const std::uint32_t index = written_.find(written);
    return index == detail::StringTable::none ? std::nullopt : std::optional(ids_[index]);
  }

  /// Whether an id is a token: there may be gaps.
  bool contains(Token token) const { return token >= 0 && token < vocabulary() && entry(token).known; }

  /// Whether a token is a special token.
  bool is_special(Token token) const { return contains(token) && entry(token).special; }

 private:
  /// A part of texts_.
  struct Range {
    std::size_t begin = 0, end = 0;
  };
  struct Entry {
    bool known = false, special = false;
    Range written;  // the decoder's input
    Range text;     // decoded, except at the beginning of a text
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
  void encode_segment(std::string_view text, std::size_t begin, std::size_t end, WordCache& cache,
                      std::vector<Token>& tokens) const;
  void encode_word(std::string_view word, WordCache& cache, std::vector<Token>& tokens) const;
  void encode_part(std::string_view word, WordCache& cache, std::vector<Token>& tokens) const;

  [[noreturn]] void refuse_character(std::string_view text, std::size_t begin, std::string_view normalized,
                                     const detail::UnknownCharacter& unknown) const;

  detail::Normalizer normalizer_;
  detail::PreTokenizer pre_tokenizer_;
  std::shared_ptr<const detail::BytePairEncoding> model_;
  detail::TokenDecoder decoder_;
  detail::AddedTokens added_;             // matched in the input text
  detail::AddedTokens added_normalized_;  // matched in the normalised text
  detail::PostProcessor post_processor_;
  detail::StringTable written_;
  std::vector<Token> ids_;  // of the strings in written_
  std::vector<Entry> entries_;
  std::string texts_;  // of all tokens, concatenated
};

/// Reads a file tokenizer.json. Throws std::runtime_error as BpeTokenizer does, and if the file cannot be read.
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

  // Gaps between ids are allowed, but limited so that a small file cannot take much memory.
  const std::size_t added = root["added_tokens"].is_null() ? 0 : root["added_tokens"].elements().size();
  const std::size_t limit = 2 * (contents.ids.size() + added) + 65535;
  model_ = std::make_shared<const detail::BytePairEncoding>(contents, file, pre_tokenizer_.byte_level());
  written_ = std::move(contents.vocabulary);
  ids_ = std::move(contents.ids);
  texts_.reserve(written_.bytes());
  const auto index_of = [&](Token id) { return std::min(static_cast<std::size_t>(id), limit); };
  if (const auto last = std::max_element(ids_.begin(), ids_.end()); last != ids_.end())
    entries_.resize(index_of(*last) + 1);
  for (std::size_t i = 0; i < ids_.size(); ++i) {
    // Prefetch, as ids may be in any order.
    if (constexpr std::size_t ahead = 8; i + ahead < ids_.size()) {
      __builtin_prefetch(entries_.data() + index_of(ids_[i + ahead]), 1);
    }
    const auto field = [&] {
      return detail::JsonField(file, "model.vocab " + detail::in_quotes(written_[i]), nullptr);
    };
    if (static_cast<std::size_t>(ids_[i]) > limit) {
      field().refuse(std::to_string(ids_[i]), "0 to " + std::to_string(limit) + " for a vocabulary of this size");
    }
    add_entry(field, written_[i], ids_[i]);
  }
  read_added_tokens(root["added_tokens"], limit);
  post_processor_ = detail::PostProcessor(root["post_processor"], [&](Token id) { return contains(id); });
}

/// field() gives the field to be named if another token has the id.
template <class Field>
void BpeTokenizer::add_entry(const Field& field, std::string_view written, Token id) {
  const auto index = static_cast<std::size_t>(id);
  if (index >= entries_.size()) entries_.resize(index + 1);
  if (entries_[index].known) {
    field().refuse("id " + std::to_string(id),
                   "a unique id; " + detail::in_quotes(text_in(entries_[index].written)) + " has the same");
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
    if (!seen.insert(content).second) item["content"].refuse("each added token only once");
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
      // The normalised text is stored, and a small file must not take much memory.
      const std::size_t most = 4 * content.size() + 64;
      if (search.text.empty() || search.text.size() > most) {
        item["content"].refuse("a text that the normalizer turns into 1 to " + std::to_string(most) + " bytes");
      }
      // The reference decodes such a token to its normalised text.
      write(entries_[static_cast<std::size_t>(id)], search.text);
    }
    if (!(normalized ? added_normalized_ : added_).add(std::move(search))) {
      item["content"].refuse("a text whose normalised form no other added token has");
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
      encode_segment(text, begin, end, cache, tokens);
    }
  });
  if (options.special_tokens) {
    tokens.insert(tokens.end(), post_processor_.after().begin(), post_processor_.after().end());
  }
  return tokens;
}

inline void BpeTokenizer::encode_segment(std::string_view text, std::size_t begin, std::size_t end, WordCache& cache,
                                         std::vector<Token>& tokens) const {
  std::string_view segment = text.substr(begin, end - begin);
  std::string normalized;
  std::ptrdiff_t at_begin = begin == 0 ? 0 : -1;
  if (!normalizer_.empty()) segment = normalized = normalizer_(segment, at_begin);
  try {
    added_normalized_.split(segment, [&](std::size_t from, std::size_t to, const detail::AddedToken* token) {
      if (token != nullptr) {
        tokens.push_back(token->id);
        return;
      }
      pre_tokenizer_.split(segment.substr(from, to - from), at_begin - static_cast<std::ptrdiff_t>(from),
                           [&](std::string_view word) { encode_word(word, cache, tokens); });
    });
  } catch (const detail::UnknownCharacter& unknown) {
    refuse_character(text, begin, segment, unknown);
  }
}

/// Names the position of a character without a token: in the text, or in the normalised text from `begin` on if that
/// differs.
inline void BpeTokenizer::refuse_character(std::string_view text, std::size_t begin, std::string_view normalized,
                                           const detail::UnknownCharacter& unknown) const {
  const std::string_view character =
      detail::unit_around(normalized, static_cast<std::size_t>(unknown.at - normalized.data()));
  const auto at = static_cast<std::size_t>(character.data() - normalized.data()), end = at + character.size();
  const bool same = text.substr(begin).substr(0, end) == normalized.substr(0, end);
  std::string position = " at byte " + std::to_string(same ? begin + at : at);
  if (!same) position += " of the normalised text from byte " + std::to_string(begin) + " on";
  // Such as the replacement of a space, or a prepended one.
  if (unknown.unit != character) {
    position = ", which the pre-tokenizer writes for " + detail::in_quotes(character) + position;
  }
  throw std::invalid_argument(error_text("text", detail::in_quotes(unknown.unit) + position,
                                         "characters that have a token, as " + model_->no_unknown_token()));
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
  require_range(contains(token), "token", token,
                [&] { return "0 to " + std::to_string(vocabulary() - 1) + ", except gaps in the vocabulary"; });
  const Entry& found = entry(token);
  if (decoding.skip_special_tokens && found.special) return;
  detail::TokenDecoder::State state = decoding.state;
  const Token previous = std::exchange(state.previous, token);
  std::string decoded;
  const std::string_view written = text_in(found.written);
  if (!decoder_.merges_repeated() || previous < 0 || text_in(entry(previous).written) != written) {
    std::string at_begin;
    const bool differs = state.first && decoder_.first_differs();
    if (differs) at_begin = decoder_(written, true);
    decoded = decoder_.join(state, differs ? std::string_view(at_begin) : text_in(found.text));
  }
  text += decoded;
  decoding.state = state;
}

}  // namespace moe_mamba::inline v0_2
