#pragma once

#include <cstddef>
#include <string_view>
#include <utility>
#include <vector>

#include "moe_mamba/tokenizers/unicode.hpp"

/// A text as the pieces that something matches in it, and the words that they make.
namespace moe_mamba::detail {

/// What becomes of the pieces that are matched.
enum class SplitBehavior { Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous };

/// A piece of a text, and whether it was matched.
struct SplitPiece {
  std::size_t begin, end;
  bool match;
};

/// The words from all pieces of a text, in order. Some may be empty, where matches are.
inline std::vector<SplitPiece> apply_behavior(const std::vector<SplitPiece>& pieces, SplitBehavior behavior) {
  std::vector<SplitPiece> words;
  bool previous = false;  // whether the piece before this one was a match
  switch (behavior) {
    case SplitBehavior::Removed:
      for (const SplitPiece& piece : pieces) {
        if (!piece.match) words.push_back(piece);
      }
      break;
    case SplitBehavior::Isolated:
      words = pieces;
      break;
    case SplitBehavior::Contiguous:
      for (const SplitPiece& piece : pieces) {
        if (piece.match == previous && !words.empty()) {
          words.back().end = piece.end;
        } else {
          words.push_back(piece);
        }
        previous = piece.match;
      }
      break;
    case SplitBehavior::MergedWithPrevious:
      for (const SplitPiece& piece : pieces) {
        if (piece.match && !previous && !words.empty()) {
          words.back().end = piece.end;
        } else {
          words.push_back(piece);
        }
        previous = piece.match;
      }
      break;
    case SplitBehavior::MergedWithNext:
      for (std::size_t i = 0; i < pieces.size(); ++i) {
        // Of a row of matches the last one goes to what follows it.
        const bool merges = pieces[i].match && i + 1 < pieces.size() && !pieces[i + 1].match;
        words.push_back(pieces[i]);
        if (merges) words.back().end = pieces[++i].end;
      }
      break;
  }
  return words;
}

/// Collects matches, which come in order, and what lies between them.
class SplitPieces {
 public:
  explicit SplitPieces(std::size_t size) : size_(size) {}

  void add(std::size_t begin, std::size_t end) {
    if (begin > end_) pieces_.push_back({end_, begin, false});
    pieces_.push_back({begin, end, true});
    end_ = end;
  }
  std::vector<SplitPiece> finish() {
    if (end_ < size_) pieces_.push_back({end_, size_, false});
    return std::move(pieces_);
  }

 private:
  std::vector<SplitPiece> pieces_;
  std::size_t size_, end_ = 0;
};

/// Matches of a string.
inline std::vector<SplitPiece> match_literal(std::string_view text, std::string_view literal) {
  SplitPieces pieces(text.size());
  for (std::size_t at = 0; (at = text.find(literal, at)) != text.npos; at += literal.size()) {
    pieces.add(at, at + literal.size());
  }
  return pieces.finish();
}

/// Matches of single characters.
template <class Predicate>
std::vector<SplitPiece> match_characters(std::string_view text, const Predicate& matches) {
  SplitPieces pieces(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Unit unit = utf8_unit(text, at);
    if (matches(unit.code)) pieces.add(at, at + unit.bytes);
    at += unit.bytes;
  }
  return pieces.finish();
}

}  // namespace moe_mamba::detail
