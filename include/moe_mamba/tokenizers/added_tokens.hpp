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

/// Added tokens: strings that are matched in the text before anything else and never split.
namespace moe_mamba::inline v0_2::detail {

struct AddedToken {
  Token id = 0;
  std::string text;          // the string to match
  bool single_word = false;  // only if no letter, mark or number is adjacent
  bool strip_left = false;   // includes white space before the match
  bool strip_right = false;  // includes white space after the match
};

/// Matches strings in a text from left to right, the longest if several begin at the same position.
class AddedTokens {
 public:
  static constexpr std::size_t longest = 1024;  // bytes of a token: bounds the search at each byte

  bool empty() const { return tokens_.empty(); }

  /// Adds a token and returns true, unless there is one with the same text.
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
        const std::string_view label = label_of(node, child), rest = text.substr(depth);
        const auto same = static_cast<std::size_t>(
            std::mismatch(label.begin(), label.end(), rest.begin(), rest.end()).first - label.begin());
        if (same == label.size()) {
          node = child;
          continue;
        }
        nodes_.push_back({PairTable::none, nodes_[child].through, depth + static_cast<std::uint32_t>(same)});
        children_.set(next, static_cast<unsigned char>(label[same]), {child, 0});
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

  /// Calls call(begin, end, const AddedToken*) for the segments of a text in order, with null for those without a
  /// token. If the white space stripped by two tokens overlaps, so do their segments; an empty segment is skipped.
  template <class Call>
  void split(std::string_view text, const Call& call) const {
    std::size_t done = 0;       // end of the segments so far
    std::size_t space_end = 0;  // end of the last white space skipped
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
      at = match_end;  // even if the match is then skipped
      if (token->single_word && (word_before(text, begin) || (classes_at(text, end) & Word) != 0)) continue;
      if (token->strip_left) begin = begin_of_space(text, std::max(begin, done), done);
      if (token->strip_right) {
        if (end >= space_end) space_end = skip_classes(text, end, Space);
        end = space_end;
      }
      if (begin >= end) continue;  // an earlier token stripped all of it
      if (done < begin) call(done, begin, nullptr);
      call(begin, end, token);
      done = end;
    }
    if (done != text.size()) call(done, text.size(), nullptr);
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
      if (bytes > 1 && text.substr(at, bytes) != label_of(node, child)) break;
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
  /// The beginning of the white space that ends at `at`, but not before `least`.
  static std::size_t begin_of_space(std::string_view text, std::size_t at, std::size_t least) {
    while (at > least) {
      const std::size_t before = unit_before(text, at);
      if ((classes_at(text, before) & Space) == 0) break;
      at = before;
    }
    return at;
  }

  /// A node of a radix tree, where tokens diverge or end. An edge has all bytes that the tokens below it share, so
  /// there are at most two nodes per token, however long.
  struct Node {
    std::uint32_t token;    // the token that ends here, or none
    std::uint32_t through;  // a token that ends here or below
    std::uint32_t depth;    // bytes from the root
  };

  /// The bytes of the edge from a node to a child.
  std::string_view label_of(std::uint32_t node, std::uint32_t child) const {
    const std::uint32_t depth = nodes_[node].depth;
    return std::string_view(tokens_[nodes_[child].through].text).substr(depth, nodes_[child].depth - depth);
  }

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_{{PairTable::none, PairTable::none, 0}};
  PairTable children_;                      // (node, byte) to node
  std::array<std::uint8_t, 256> begins_{};  // 1 for first bytes of tokens
};

}  // namespace moe_mamba::inline v0_2::detail
