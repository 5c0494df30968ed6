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

/// From text to tokens and back. The tokenizers of public checkpoints are in moe_mamba/tokenizers.hpp, a component of
/// its own; what is here needs nothing but the standard library.
namespace moe_mamba {

struct EncodeOptions {
  /// Add the special tokens that the tokenizer puts around a text, such as one for its begin, if it has any.
  bool special_tokens = true;
};

struct DecodeOptions {
  /// Leave out special tokens. False where the text should show them.
  bool skip_special_tokens = true;
};

/// What turns text into tokens and back. `Decoding` is the state of a decoding that goes on: `append` adds to a string
/// what the next token says there.
template <class T>
concept Tokenizer = requires(const T& tokenizer, std::string_view text, std::span<const Token> tokens,
                             typename T::Decoding& decoding, Token token, std::string& out) {
  { tokenizer.encode(text, EncodeOptions{}) } -> std::same_as<std::vector<Token>>;
  { tokenizer.decode(tokens, DecodeOptions{}) } -> std::same_as<std::string>;
  { tokenizer.decoding(DecodeOptions{}) } -> std::same_as<typename T::Decoding>;
  tokenizer.append(decoding, token, out);
  { tokenizer.vocabulary() } -> std::convertible_to<Index>;
};

/// Each byte is a token, 0 to 255. Any bytes are text, and come back as they were.
class ByteTokenizer {
 public:
  struct Decoding {};

  /// One more than the largest token.
  static constexpr Index vocabulary() { return 256; }

  std::vector<Token> encode(std::string_view text, EncodeOptions = {}) const {
    std::vector<Token> tokens(text.size());
    std::transform(text.begin(), text.end(), tokens.begin(),
                   [](char byte) { return static_cast<Token>(static_cast<unsigned char>(byte)); });
    return tokens;
  }

  /// Throws std::out_of_range for a token that is no byte.
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

/// Text from tokens as they come. A token may end inside a character; its bytes are held back until the rest is there,
/// so that each piece can be shown. All pieces and what finish() gives are together what decode() gives, to the byte.
/// Bytes that no further byte could make a character are not held back. The tokenizer must outlive the decoder.
template <Tokenizer T>
class StreamDecoder {
 public:
  explicit StreamDecoder(const T& tokenizer, DecodeOptions options = {})
      : tokenizer_(tokenizer), options_(options), decoding_(tokenizer.decoding(options)) {}
  explicit StreamDecoder(const T&&, DecodeOptions = {}) = delete;

  /// The text that the token completes, which may be none. Throws, with the decoder as it was, std::out_of_range for a
  /// token outside the vocabulary.
  std::string push(Token token) {
    typename T::Decoding decoding = decoding_;
    std::string piece = held_;
    tokenizer_.append(decoding, token, piece);
    const std::size_t ready = piece.size() - detail::incomplete_utf8(piece);
    held_ = piece.substr(ready);
    decoding_ = std::move(decoding);
    piece.resize(ready);
    return piece;
  }

  /// The bytes still held back, which are no whole character; the decoder then begins anew.
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

}  // namespace moe_mamba
