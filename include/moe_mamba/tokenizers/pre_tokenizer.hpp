#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moe_mamba/tokenizers/normalizer.hpp"
#include "moe_mamba/tokenizers/split_pattern.hpp"
#include "moe_mamba/tokenizers/unknown_character.hpp"

/// The second part of a tokenizer: cutting text into words, which are then encoded one by one.
namespace moe_mamba::detail {

/// What becomes of the pieces that a pattern matches.
enum class SplitBehavior { Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous };

/// A piece of a text, and whether a pattern matched it.
struct SplitPiece {
  std::size_t begin, end;
  bool match;
};

/// The words from all pieces of a text, in order.
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

class PreTokenizer {
 public:
  PreTokenizer() = default;
  explicit PreTokenizer(const JsonField& field) { add(field); }

  /// Whether words are bytes, as byte-level pre-tokenisation makes them, and not characters.
  bool byte_level() const { return byte_level_; }

  /// Calls word(std::string_view) for each word of a piece of text, which is not empty. `at_begin` says whether it is
  /// the begin of the whole text.
  template <class Word>
  void split(std::string_view text, bool at_begin, Word&& word) const {
    split_from(0, text, at_begin, word);
  }

 private:
  struct Step {
    enum class Kind { Pattern, Literal, Digits, ByteLevel, Metaspace } kind;
    const SplitPattern* pattern = nullptr;  // of ByteLevel as well, null where it does not split
    std::string text;                       // the literal; Metaspace's replacement of a space
    SplitBehavior behavior = SplitBehavior::Isolated;
    bool invert = false;
    bool prefix = false;        // put a space, or its replacement, in front
    bool prefix_first = false;  // at the begin of the text only
    bool splits = true;
  };

  template <class Word>
  void split_from(std::size_t index, std::string_view text, bool at_begin, Word& word) const {
    if (text.empty()) return;
    if (index == steps_.size()) return word(text);
    const Step& step = steps_[index];
    const auto next = [&](std::string_view piece) {
      split_from(index + 1, piece, at_begin && piece.data() == text.data(), word);
    };
    if (step.kind == Step::Kind::Metaspace) {
      std::string replaced = replace_all(text, " ", step.text);
      const bool prefixed = (step.prefix || (step.prefix_first && at_begin)) && !replaced.starts_with(step.text);
      if (prefixed) replaced.insert(0, step.text);
      try {
        if (!step.splits) return split_from(index + 1, replaced, at_begin, word);
        for (const SplitPiece& piece : apply_behavior(literals(replaced, step.text), SplitBehavior::MergedWithNext)) {
          const auto part = std::string_view(replaced).substr(piece.begin, piece.end - piece.begin);
          split_from(index + 1, part, at_begin && piece.begin == 0, word);
        }
      } catch (UnknownCharacter& unknown) {
        const std::size_t units = count_units(replaced.data(), unknown.at);
        unknown.at = find_unit(text, units - (prefixed && units > 0 ? 1 : 0));
        throw;
      }
      return;
    }
    if (step.kind == Step::Kind::ByteLevel) {
      if (!step.prefix || text.starts_with(' ')) return split_words(step.pattern, text, next);
      const std::string prefixed = ' ' + std::string(text);
      try {
        return split_words(step.pattern, prefixed,
                           [&](std::string_view piece) { split_from(index + 1, piece, false, word); });
      } catch (UnknownCharacter& unknown) {
        const auto bytes = static_cast<std::size_t>(unknown.at - prefixed.data());
        unknown.at = text.data() + bytes - (bytes > 0 ? 1 : 0);
        throw;
      }
    }
    // These patterns match everything, so that there is nothing between the matches.
    const bool isolated =
        step.behavior == SplitBehavior::Isolated || (step.behavior == SplitBehavior::Removed && step.invert);
    if (step.kind == Step::Kind::Pattern && isolated) return split_words(step.pattern, text, next);
    std::vector<SplitPiece> pieces;
    if (step.kind == Step::Kind::Pattern) {
      split_words(step.pattern, text, [&](std::string_view piece) {
        const auto begin = static_cast<std::size_t>(piece.data() - text.data());
        pieces.push_back({begin, begin + piece.size(), true});
      });
    } else {
      pieces = step.kind == Step::Kind::Digits ? digits(text) : literals(text, step.text);
    }
    if (step.invert) {
      for (SplitPiece& piece : pieces) piece.match = !piece.match;
    }
    for (const SplitPiece& piece : apply_behavior(pieces, step.behavior)) {
      next(text.substr(piece.begin, piece.end - piece.begin));
    }
  }

  template <class Next>
  static void split_words(const SplitPattern* pattern, std::string_view text, const Next& next) {
    if (pattern == nullptr) return next(text);
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = match_word(*pattern, text, at);
      next(text.substr(at, end - at));
      at = end;
    }
  }

  static std::vector<SplitPiece> literals(std::string_view text, std::string_view literal) {
    std::vector<SplitPiece> pieces;
    std::size_t at = 0;
    for (std::size_t found; (found = text.find(literal, at)) != text.npos; at = found + literal.size()) {
      if (found > at) pieces.push_back({at, found, false});
      pieces.push_back({found, found + literal.size(), true});
    }
    if (at < text.size()) pieces.push_back({at, text.size(), false});
    return pieces;
  }

  static std::vector<SplitPiece> digits(std::string_view text) {
    std::vector<SplitPiece> pieces;
    for (std::size_t at = 0; at < text.size();) {
      const ClassifiedUnit unit = classified_unit(text, at);
      const bool match = (unit.classes & Number) != 0;
      if (match || pieces.empty() || pieces.back().match) pieces.push_back({at, at, match});
      at = pieces.back().end = at + unit.bytes;
    }
    return pieces;
  }

  void add(const JsonField& field);
  void add_split(const JsonField& field);

  std::vector<Step> steps_;
  bool byte_level_ = false;
};

inline void PreTokenizer::add(const JsonField& field) {
  if (field.is_null()) return;
  const std::size_t type = field["type"].choice({"ByteLevel", "Split", "Metaspace", "Digits", "Sequence"});
  if (type != 4 && byte_level_) field["type"].refuse("nothing after ByteLevel, which leaves bytes");
  if (steps_.size() == 16) field.refuse("one step more", "at most 16 steps");
  Step step{};
  if (type == 0) {
    step.kind = Step::Kind::ByteLevel;
    step.prefix = field["add_prefix_space"].boolean();
    if (field["use_regex"].boolean_or(true)) step.pattern = &split_patterns[0];
    byte_level_ = true;
    steps_.push_back(step);
  } else if (type == 1) {
    add_split(field);
  } else if (type == 2) {
    step.kind = Step::Kind::Metaspace;
    step.text = field["replacement"].string();
    if (step.text.empty() || utf8_unit(step.text).bytes != step.text.size()) {
      field["replacement"].refuse("one character");
    }
    const std::size_t scheme =
        field["prepend_scheme"].is_null() ? 0 : field["prepend_scheme"].choice({"always", "first", "never"});
    if (!field["add_prefix_space"].boolean_or(true) && scheme != 2 && !field["prepend_scheme"].is_null()) {
      field["add_prefix_space"].refuse("true, or the prepend_scheme never");
    }
    step.prefix = scheme == 0 && field["add_prefix_space"].boolean_or(true);
    step.prefix_first = scheme == 1;
    step.splits = field["split"].boolean_or(true);
    steps_.push_back(step);
  } else if (type == 3) {
    step.kind = Step::Kind::Digits;
    step.behavior = field["individual_digits"].boolean() ? SplitBehavior::Isolated : SplitBehavior::Contiguous;
    steps_.push_back(step);
  } else {
    for (const JsonField& part : field["pretokenizers"].elements()) add(part);
  }
}

inline void PreTokenizer::add_split(const JsonField& field) {
  Step step{};
  const JsonField regex = field["pattern"]["Regex"];
  if (regex.is_null()) {
    step.kind = Step::Kind::Literal;
    step.text = literal_pattern(field["pattern"]);
  } else {
    step.kind = Step::Kind::Pattern;
    step.pattern = find_split_pattern(regex.string());
    if (step.pattern == nullptr) {
      std::string allowed = "the pattern of ";
      for (const SplitPattern& pattern : split_patterns) {
        allowed += (&pattern == &split_patterns.front() ? "" : ", of ") + std::string(pattern.name);
      }
      regex.refuse(allowed);
    }
  }
  step.behavior = static_cast<SplitBehavior>(
      field["behavior"].choice({"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"}));
  step.invert = field["invert"].boolean();
  steps_.push_back(step);
}

}  // namespace moe_mamba::detail
