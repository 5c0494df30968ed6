#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/tokenizers/byte_alphabet.hpp"
#include "moe_mamba/tokenizers/file_pattern.hpp"

/// The last stage of a tokenizer: from the texts of tokens to text. It works token by token, so that text can be
/// decoded incrementally. Bytes are passed through unchanged, even if they are not valid UTF-8.
namespace moe_mamba::inline v0_2::detail {

class TokenDecoder {
 public:
  explicit TokenDecoder(const JsonField& field);

  /// State of an incremental decoding.
  struct State {
    bool first = true;
    std::size_t strip = 0;  // characters that may still be stripped from the beginning of the text
    std::size_t held = 0;   // strippable characters at its end, emitted once others follow
    bool space = false;     // the same for the space after a word
    Token previous = -1;
  };
  State state() const {
    State begin;
    begin.strip = strip_start_;
    return begin;
  }

  /// Whether a token decodes differently as the first one.
  bool first_differs() const { return first_differs_; }

  /// A token's decoded text, at the beginning of the text or elsewhere, before join().
  std::string operator()(std::string_view token, bool first) const {
    std::string text(token);
    for (const Step& step : steps_) text = step(text, first);
    return text;
  }

  /// Whether a token that repeats the one before it is dropped.
  bool merges_repeated() const { return merges_repeated_; }

  /// The text to append for the next token's decoded text.
  std::string join(State& state, std::string_view decoded) const;

 private:
  using Step = std::function<std::string(std::string_view, bool first)>;

  void add(const JsonField& field);
  void add_replace(const JsonField& field);
  void add_strip(const JsonField& field);
  void add_metaspace(const JsonField& field);
  void add_word_piece(const JsonField& field);
  void add_ctc(const JsonField& field);

  std::vector<Step> steps_;
  TextGrowth growth_;
  bool first_differs_ = false, merges_repeated_ = false;
  bool is_text_ = false;    // whether the steps so far produce text rather than tokens
  bool is_joined_ = false;  // whether that is a single text
  std::string suffix_;      // of the last token of a word
  std::size_t strip_start_ = 0, strip_stop_ = 0;
  char strip_character_ = ' ';
};

inline TokenDecoder::TokenDecoder(const JsonField& field) {
  add(field);
  if (!field.is_null()) return;
  first_differs_ = true;
  steps_.emplace_back([](std::string_view token, bool first) { return (first ? "" : " ") + std::string(token); });
}

inline std::string TokenDecoder::join(State& state, std::string_view decoded) const {
  std::string text = std::exchange(state.space, false) ? " " : "";
  if (!suffix_.empty()) {
    state.space = decoded.ends_with(suffix_);
    if (state.space) decoded.remove_suffix(suffix_.size());
    text += replace_all(decoded, suffix_, " ");
  } else {
    text += decoded;
  }
  state.first = false;
  if (state.strip > 0) {
    const std::size_t others = std::min(text.find_first_not_of(strip_character_), text.size());
    const std::size_t count = std::min(others, state.strip);
    state.strip = count < text.size() ? 0 : state.strip - count;
    text.erase(0, count);
  }
  if (strip_stop_ > 0 && !text.empty()) {
    const std::size_t end = text.find_last_not_of(strip_character_) + 1;  // 0 if there are no others
    const std::size_t count = text.size() - end + (end == 0 ? state.held : 0);
    const std::size_t before = end == 0 ? 0 : state.held;
    state.held = std::min(count, strip_stop_);
    text.resize(end);
    text.insert(0, before, strip_character_).append(count - state.held, strip_character_);
  }
  return text;
}

/// The byte of a token such as <0x41>.
inline std::optional<char> byte_of_token(std::string_view token) {
  const auto digit = [&](std::size_t at) {
    const char c = token[at];
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
  };
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>' || digit(3) < 0 || digit(4) < 0) {
    return std::nullopt;
  }
  return static_cast<char>(static_cast<unsigned char>(digit(3) * 16 + digit(4)));
}

/// Removes the spaces that WordPiece leaves around punctuation and contractions.
inline std::string clean_up_spaces(std::string text) {
  constexpr std::pair<std::string_view, std::string_view> replacements[] = {
      {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
      {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : replacements) text = replace_all(text, from, to);
  return text;
}

inline void TokenDecoder::add(const JsonField& field) {
  if (field.is_null()) return;
  const JsonField type = field["type"];
  const std::size_t kind = type.choice({"ByteLevel", "Metaspace", "BPEDecoder", "WordPiece", "CTC", "ByteFallback",
                                        "Replace", "Fuse", "Strip", "Sequence"});
  if (kind <= 5 && (is_text_ || !suffix_.empty()))
    type.refuse("Fuse, Strip, or Replace of an ASCII character at this position");
  if (kind >= 1 && kind <= 3 && merges_repeated_)
    type.refuse("a decoder that does not depend on the number of tokens, as CTC drops some");
  switch (kind) {
    case 0:
      steps_.emplace_back(
          [](std::string_view token, bool) { return bytes_of_token(token).value_or(std::string(token)); });
      is_text_ = is_joined_ = true;
      break;
    case 1:
      add_metaspace(field);
      break;
    case 2:
      suffix_ = field["suffix"].string_or("</w>");
      if (suffix_.empty()) field["suffix"].refuse("one character or more");
      break;
    case 3:
      add_word_piece(field);
      break;
    case 4:
      if (!steps_.empty()) type.refuse("CTC as the first step");
      add_ctc(field);
      break;
    case 5:
      steps_.emplace_back([](std::string_view token, bool) {
        const auto byte = byte_of_token(token);
        return byte ? std::string(1, *byte) : std::string(token);
      });
      is_text_ = true;
      break;
    case 6:
      add_replace(field);
      break;
    case 7:
      is_text_ = is_joined_ = true;
      break;
    case 8:
      add_strip(field);
      break;
    default:
      for (const JsonField& part : field["decoders"].elements()) add(part);
  }
  if (steps_.size() > 16) field.refuse("a 17th step", "at most 16");
}

inline void TokenDecoder::add_metaspace(const JsonField& field) {
  const JsonField scheme = field["prepend_scheme"];
  const bool never = !scheme.is_null() && scheme.choice({"always", "first", "never"}) == 2;
  const bool drops = !never && field["add_prefix_space"].boolean_or(true);
  first_differs_ = first_differs_ || drops;
  steps_.emplace_back([replacement = one_character(field["replacement"]), drops](std::string_view token, bool first) {
    return replace_all(token, replacement, first && drops ? "" : " ");
  });
}

inline void TokenDecoder::add_word_piece(const JsonField& field) {
  first_differs_ = true;
  steps_.emplace_back([prefix = field["prefix"].string_or("##"), cleans = field["cleanup"].boolean_or(true)](
                          std::string_view token, bool first) {
    std::string text = first || token.starts_with(prefix) ? "" : " ";
    if (!first && token.starts_with(prefix)) token.remove_prefix(prefix.size());
    text += token;
    return cleans ? clean_up_spaces(std::move(text)) : text;
  });
}

/// Connectionist temporal classification, for speech: repeated tokens are merged, and the pad token is dropped.
inline void TokenDecoder::add_ctc(const JsonField& field) {
  const std::string pad = field["pad_token"].string_or("<pad>"), word = field["word_delimiter_token"].string_or("|");
  if (pad.empty()) field["pad_token"].refuse("one character or more");
  if (word.empty()) field["word_delimiter_token"].refuse("one character or more");
  merges_repeated_ = true;
  steps_.emplace_back([pad, word, cleans = field["cleanup"].boolean_or(true)](std::string_view token, bool) {
    std::string text = replace_all(token, pad, "");
    return cleans ? replace_all(clean_up_spaces(std::move(text)), word, " ") : text;
  });
}

inline void TokenDecoder::add_replace(const JsonField& field) {
  Replacement replacement(field);
  const bool stripped = strip_start_ > 0 || strip_stop_ > 0;
  if ((is_text_ && !replacement.is_of_ascii_character()) || stripped || !suffix_.empty()) {
    field["type"].refuse("Replace before the other steps, Replace of an ASCII character, Fuse or Strip");
  }
  growth_.check(field["content"], replacement.growth());
  steps_.emplace_back([replacement](std::string_view token, bool) { return replacement(token); });
}

/// Strips each token, or, after Fuse, the whole text.
inline void TokenDecoder::add_strip(const JsonField& field) {
  const std::string& character = one_character(field["content"]);
  const std::size_t start = field["start"].integer(1u << 20), stop = field["stop"].integer(1u << 20);
  if (!is_joined_) {
    if (is_text_ || !suffix_.empty()) field["type"].refuse("Strip before ByteFallback or after Fuse");
    steps_.emplace_back([character, start, stop](std::string_view token, bool) {
      for (std::size_t i = 0; i < start && token.starts_with(character); ++i) token.remove_prefix(character.size());
      for (std::size_t i = 0; i < stop && token.ends_with(character); ++i) token.remove_suffix(character.size());
      return std::string(token);
    });
    return;
  }
  if (strip_start_ > 0 || strip_stop_ > 0) field["type"].refuse("one Strip after Fuse");
  if (character.size() != 1) field["content"].refuse("one ASCII character");
  strip_character_ = character[0];
  strip_start_ = start;
  strip_stop_ = stop;
}

}  // namespace moe_mamba::inline v0_2::detail
