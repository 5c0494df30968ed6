#pragma once

#include <algorithm>
#include <concepts>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/text/utf8.hpp"

/// From text to tokens and back. The tokenizers of public checkpoints are in the opt-in component
/// moe_mamba/tokenizers.hpp; this header needs only the standard library.
namespace moe_mamba::inline v0_2 {

struct EncodeOptions {
  /// Add the special tokens that the tokenizer puts around a text, if any, such as one for its beginning.
  bool special_tokens = true;
};

struct DecodeOptions {
  /// Omit special tokens from the text.
  bool skip_special_tokens = true;
};

/// Converts text to tokens and back. `Decoding` is the state of an incremental decoding; `append` appends the text of
/// the next token to a string.
template <class T>
concept Tokenizer = requires(const T& tokenizer, std::string_view text, std::span<const Token> tokens,
                             typename T::Decoding& decoding, Token token, std::string& out) {
  { tokenizer.encode(text, EncodeOptions{}) } -> std::same_as<std::vector<Token>>;
  { tokenizer.decode(tokens, DecodeOptions{}) } -> std::same_as<std::string>;
  { tokenizer.decoding(DecodeOptions{}) } -> std::same_as<typename T::Decoding>;
  tokenizer.append(decoding, token, out);
  { tokenizer.vocabulary() } -> std::convertible_to<Index>;
};

/// Each byte is a token, 0 to 255. Any bytes are valid text and are reproduced by decoding.
class ByteTokenizer {
 public:
  struct Decoding {};

  /// One more than the largest token id.
  static constexpr Index vocabulary() { return 256; }

  std::vector<Token> encode(std::string_view text, EncodeOptions = {}) const {
    std::vector<Token> tokens(text.size());
    std::transform(text.begin(), text.end(), tokens.begin(),
                   [](char byte) { return static_cast<Token>(static_cast<unsigned char>(byte)); });
    return tokens;
  }

  /// Throws std::out_of_range for a token outside 0 to 255.
  std::string decode(std::span<const Token> tokens, DecodeOptions = {}) const {
    std::string text;
    Decoding decoding;
    for (const Token token : tokens) append(decoding, token, text);
    return text;
  }

  Decoding decoding(DecodeOptions = {}) const { return {}; }

  void append(Decoding&, Token token, std::string& text) const {
    require_range(token >= 0 && token < vocabulary(), "token", token, "0 to 255");
    text += static_cast<char>(static_cast<unsigned char>(token));
  }
};

/// Decodes tokens incrementally. A token may end inside a character; its bytes are held back until the character is
/// complete, so that the result of each push() can be displayed. Concatenated, the results of push() and finish() equal
/// decode(), byte for byte. Bytes that cannot become a character are not held back. The tokenizer must outlive the
/// decoder.
template <Tokenizer T>
class StreamDecoder {
 public:
  explicit StreamDecoder(const T& tokenizer, DecodeOptions options = {})
      : tokenizer_(tokenizer), options_(options), decoding_(tokenizer.decoding(options)) {}
  explicit StreamDecoder(const T&&, DecodeOptions = {}) = delete;

  /// The text completed by the token, possibly empty. Throws std::out_of_range for a token outside the vocabulary,
  /// leaving the decoder unchanged.
  std::string push(Token token) {
    typename T::Decoding decoding = decoding_;
    std::string text = held_;
    tokenizer_.append(decoding, token, text);
    const std::size_t complete = text.size() - detail::incomplete_utf8(text);
    held_ = text.substr(complete);
    decoding_ = std::move(decoding);
    text.resize(complete);
    return text;
  }

  /// Returns the bytes still held back, an incomplete character, and resets the decoder.
  std::string finish() {
    decoding_ = tokenizer_.decoding(options_);
    return std::exchange(held_, {});
  }

 private:
  const T& tokenizer_;
  DecodeOptions options_;
  typename T::Decoding decoding_;
  std::string held_;
};

}  // namespace moe_mamba::inline v0_2
