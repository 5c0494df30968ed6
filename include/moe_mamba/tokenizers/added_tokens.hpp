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
    const std::string_view text = token.text;
    const auto index = static_cast<std::uint32_t>(tokens_.size());
    std::uint32_t node = 0;
    while (nodes_[node].depth < text.size()) {
      const std::uint32_t depth = nodes_[node].depth;
      const auto byte = static_cast<unsigned char>(text[depth]);
      const std::uint32_t child = children_.find(node, byte).first;
      const auto next = static_cast<std::uint32_t>(nodes_.size());
      if (child == PairTable::none) {
        nodes_.push_back({PairTable::none, index, static_cast<std::uint32_t>(text.size())});
      } else {
        const std::string_view way = way_to(node, child), rest = text.substr(depth);
        const auto same = static_cast<std::size_t>(
            std::mismatch(way.begin(), way.end(), rest.begin(), rest.end()).first - way.begin());
        if (same == way.size()) {
          node = child;
          continue;
        }
        nodes_.push_back({PairTable::none, nodes_[child].through, depth + static_cast<std::uint32_t>(same)});
        children_.set(next, static_cast<unsigned char>(way[same]), {child, 0});
      }
      children_.set(node, byte, {next, 0});
      node = next;
    }
    if (nodes_[node].token != PairTable::none) return false;
    nodes_[node].token = index;
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
  const AddedToken* longest_at(std::string_view text, std::size_t begin, std::size_t& end) const {
    const AddedToken* found = nullptr;
    std::size_t at = begin;
    std::uint32_t node = 0;
    while (at < text.size()) {
      const std::uint32_t child = children_.find(node, static_cast<unsigned char>(text[at])).first;
      if (child == PairTable::none) break;
      const Node& next = nodes_[child];
      const std::size_t bytes = begin + next.depth - at;
      if (bytes > 1 && text.substr(at, bytes) != way_to(node, child)) break;
      at += bytes;
      node = child;
      if (next.token != PairTable::none) {
        found = &tokens_[next.token];
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

  /// Of a trie, where tokens part or end. Between two nodes are as many bytes as all tokens share that come through, so
  /// that there are at most two nodes for each token, however long.
  struct Node {
    std::uint32_t token;    // that ends here, or none
    std::uint32_t through;  // one that ends here or further on
    std::uint32_t depth;    // bytes up to here
  };

  /// The bytes between a node and one of the next.
  std::string_view way_to(std::uint32_t node, std::uint32_t child) const {
    const std::uint32_t depth = nodes_[node].depth;
    return std::string_view(tokens_[nodes_[child].through].text).substr(depth, nodes_[child].depth - depth);
  }

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_{{PairTable::none, PairTable::none, 0}};
  PairTable children_;                      // (node, byte) to node
  std::array<std::uint8_t, 256> begins_{};  // bytes with which a token begins
};

}  // namespace moe_mamba::detail
