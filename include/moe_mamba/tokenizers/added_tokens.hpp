#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/tokenizers/tables.hpp"
#include "moe_mamba/tokenizers/unicode.hpp"

/// Added tokens: strings that are found in the text before anything else and never cut.
namespace moe_mamba::detail {

struct AddedToken {
  Token id = 0;
  std::string text;          // what is looked for
  bool single_word = false;  // only where no letter, mark or number adjoins
  bool strip_left = false;   // takes the white space in front
  bool strip_right = false;  // takes the white space behind
};

/// Finds strings in a text: from left to right, the longest first where several begin at one place.
class AddedTokens {
 public:
  static constexpr std::size_t longest = 1024;  // bytes of a token, as a search may look so far at each byte

  bool empty() const { return tokens_.empty(); }

  /// Returns whether no token of the same text is there yet; otherwise it adds nothing.
  [[nodiscard]] bool add(AddedToken token) {
    std::uint32_t node = 0;
    for (const char c : token.text) {
      const auto byte = static_cast<unsigned char>(c);
      std::uint32_t child = children_.find(node, byte).first;
      if (child == PairTable::none) {
        child = static_cast<std::uint32_t>(token_at_.size());
        children_.set(node, byte, {child, 0});
        token_at_.push_back(PairTable::none);
      }
      node = child;
    }
    if (token_at_[node] != PairTable::none) return false;
    token_at_[node] = static_cast<std::uint32_t>(tokens_.size());
    const auto first = static_cast<unsigned char>(token.text[0]);
    begins_[first] = 1;
    tokens_.push_back(std::move(token));
    return true;
  }

  /// Calls piece(begin, end, const AddedToken*) for the parts of a text in order, with null where no token is. Where
  /// the white space that tokens take overlaps, so do the parts; a token of which nothing is left is passed over.
  template <class Piece>
  void split(std::string_view text, const Piece& piece) const {
    std::size_t done = 0;       // up to here parts have been told
    std::size_t space_end = 0;  // of the white space that was skipped last
    for (std::size_t at = empty() ? text.size() : 0; at < text.size();) {
      if (begins_[static_cast<unsigned char>(text[at])] == 0) {
        ++at;
        continue;
      }
      std::size_t match_end = 0;
      const AddedToken* token = longest_at(text, at, match_end);
      if (token == nullptr) {
        ++at;
        continue;
      }
      std::size_t begin = at, end = match_end;
      at = match_end;  // also where the match is then passed over
      if (token->single_word && (word_before(text, begin) || (classes_at(text, end) & Word) != 0)) continue;
      if (token->strip_left) begin = begin_of_space(text, std::max(begin, done), done);
      if (token->strip_right) {
        if (end >= space_end) space_end = skip_classes(text, end, Space);
        end = space_end;
      }
      if (begin >= end) continue;  // an earlier token took all of it
      if (done < begin) piece(done, begin, nullptr);
      piece(begin, end, token);
      done = end;
    }
    if (done != text.size()) piece(done, text.size(), nullptr);
  }

 private:
  const AddedToken* longest_at(std::string_view text, std::size_t at, std::size_t& end) const {
    const AddedToken* found = nullptr;
    std::uint32_t node = 0;
    while (at < text.size()) {
      node = children_.find(node, static_cast<unsigned char>(text[at])).first;
      if (node == PairTable::none) break;
      ++at;
      if (token_at_[node] != PairTable::none) {
        found = &tokens_[token_at_[node]];
        end = at;
      }
    }
    return found;
  }

  static bool word_before(std::string_view text, std::size_t at) {
    return at > 0 && (classes_at(text, unit_before(text, at)) & Word) != 0;
  }
  /// Where the white space begins that ends at `at`, not before `least`.
  static std::size_t begin_of_space(std::string_view text, std::size_t at, std::size_t least) {
    while (at > least) {
      const std::size_t before = unit_before(text, at);
      if ((classes_at(text, before) & Space) == 0) break;
      at = before;
    }
    return at;
  }

  std::vector<AddedToken> tokens_;
  PairTable children_;                                    // of a trie: (node, byte) to node
  std::vector<std::uint32_t> token_at_{PairTable::none};  // of a node
  std::array<std::uint8_t, 256> begins_{};                // bytes with which a token begins
};

}  // namespace moe_mamba::detail
