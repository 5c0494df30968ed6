#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moe_mamba/tokenizers/byte_alphabet.hpp"
#include "moe_mamba/tokenizers/file_pattern.hpp"
#include "moe_mamba/tokenizers/split_behavior.hpp"
#include "moe_mamba/tokenizers/split_pattern.hpp"
#include "moe_mamba/tokenizers/unicode_scripts.hpp"
#include "moe_mamba/tokenizers/unknown_character.hpp"

/// The second stage of a tokenizer: splits text into words, which are then encoded one by one.
namespace moe_mamba::inline v0_2::detail {

class PreTokenizer {
 public:
  PreTokenizer() = default;
  explicit PreTokenizer(const JsonField& field) { add(field); }

  /// Whether words are bytes rather than characters, as after a last step of type ByteLevel.
  bool byte_level() const { return !steps_.empty() && steps_.back().kind == Step::Kind::ByteLevel; }

  /// Calls call(std::string_view) for each word of a non-empty segment of text. Offsets up to `begin` belong to the
  /// beginning of the whole text, none if it is negative; a prepended prefix does not belong to it.
  template <class Call>
  void split(std::string_view text, std::ptrdiff_t begin, Call&& call) const {
    split_from(0, text, begin, call);
  }

 private:
  struct Step {
    enum class Kind {
      Pattern,
      Expression,
      Literal,
      Characters,
      Words,
      Scripts,
      FixedLength,
      ByteLevel,
      Metaspace
    } kind;
    const SplitPattern* pattern = nullptr;    // of ByteLevel as well, null if it does not split
    std::shared_ptr<const Regex> expression;  // of a Split by any other pattern
    bool (*characters)(char32_t) = nullptr;   // predicate: which characters match
    std::shared_ptr<const ScriptSplitter> scripts;
    std::string text;        // the literal; Metaspace's replacement of a space
    std::size_t length = 0;  // in characters
    SplitBehavior behavior = SplitBehavior::Isolated;
    bool invert = false;
    bool prefix = false;        // prepend a space, or its replacement
    bool prefix_first = false;  // at the beginning of the text only
    bool splits = true;
  };

  template <class Call>
  void split_from(std::size_t index, std::string_view text, std::ptrdiff_t begin, Call& call) const;
  template <class Call>
  void split_metaspace(std::size_t index, std::string_view text, std::ptrdiff_t begin, Call& call) const;
  template <class Call>
  void split_byte_level(std::size_t index, std::string_view text, std::ptrdiff_t begin, Call& call) const;
  template <class Call>
  void split_alphabet(std::size_t index, std::string_view text, std::ptrdiff_t begin, Call& call) const;
  template <class Next>
  static void split_words(const SplitPattern* pattern, std::string_view text, const Next& next);
  static std::vector<Segment> segments(const Step& step, std::string_view text);

  void add(const JsonField& field);
  void add_split(const JsonField& field);
  void add_metaspace(const JsonField& field);
  Step& add_step(Step::Kind kind) {
    Step& step = steps_.emplace_back();
    step.kind = kind;
    return step;
  }
  void add_characters(bool (*characters)(char32_t), SplitBehavior behavior) {
    Step& step = add_step(Step::Kind::Characters);
    step.characters = characters;
    step.behavior = behavior;
  }

  std::vector<Step> steps_;
  TextGrowth growth_;
};

/// Segments of word characters and segments of others, with the white space between them as matches.
inline std::vector<Segment> match_space_around_words(std::string_view text) {
  std::vector<Segment> segments;
  for (std::size_t at = 0; at < text.size();) {
    const auto kind_at = [&](std::size_t index) { return classes_at(text, index) & (Space | Word); };
    const std::size_t begin = at;
    const int kind = kind_at(begin);
    while (at < text.size() && kind_at(at) == kind) at += utf8_unit(text, at).bytes;
    segments.push_back({begin, at, (kind & Space) != 0});
  }
  return segments;
}

inline std::vector<Segment> cut_to_length(std::string_view text, std::size_t length) {
  std::vector<Segment> segments;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    for (std::size_t count = 0; count < length && at < text.size(); ++count) at += utf8_unit(text, at).bytes;
    segments.push_back({begin, at, false});
  }
  return segments;
}

inline std::vector<Segment> PreTokenizer::segments(const Step& step, std::string_view text) {
  SegmentCollector found(text.size());
  switch (step.kind) {
    case Step::Kind::Pattern:  // matches cover the whole text
      split_words(step.pattern, text, [&](std::string_view segment) {
        const auto begin = static_cast<std::size_t>(segment.data() - text.data());
        found.add(begin, begin + segment.size());
      });
      return found.finish();
    case Step::Kind::Expression:
      RegexMatcher(*step.expression, text).for_each([&](std::size_t begin, std::size_t end) { found.add(begin, end); });
      return found.finish();
    case Step::Kind::Literal:
      return match_literal(text, step.text);
    case Step::Kind::Characters:
      return match_characters(text, step.characters);
    case Step::Kind::Words:
      return match_space_around_words(text);
    case Step::Kind::Scripts:
      return (*step.scripts)(text);
    default:
      return cut_to_length(text, step.length);
  }
}

template <class Call>
void PreTokenizer::split_from(std::size_t index, std::string_view text, std::ptrdiff_t begin, Call& call) const {
  if (text.empty()) return;
  if (index == steps_.size()) return call(text);
  const Step& step = steps_[index];
  if (step.kind == Step::Kind::Metaspace) return split_metaspace(index, text, begin, call);
  if (step.kind == Step::Kind::ByteLevel) return split_byte_level(index, text, begin, call);
  const auto next = [&](std::string_view segment) {
    split_from(index + 1, segment, begin - (segment.data() - text.data()), call);
  };
  const bool isolated =
      step.behavior == SplitBehavior::Isolated || (step.behavior == SplitBehavior::Removed && step.invert);
  if (step.kind == Step::Kind::Pattern && isolated) return split_words(step.pattern, text, next);
  std::vector<Segment> all = segments(step, text);
  if (step.invert) {
    for (Segment& segment : all) segment.match = !segment.match;
  }
  for (const Segment& segment : apply_behavior(all, step.behavior)) {
    next(text.substr(segment.begin, segment.end - segment.begin));
  }
}

template <class Call>
void PreTokenizer::split_metaspace(std::size_t index, std::string_view text, std::ptrdiff_t begin, Call& call) const {
  const Step& step = steps_[index];
  std::string replaced = replace_all(text, " ", step.text);
  if (begin > 0) {
    begin = static_cast<std::ptrdiff_t>(
        replace_all(text.substr(0, static_cast<std::size_t>(begin)), " ", step.text).size());
  }
  const bool prefixed = (step.prefix || (step.prefix_first && begin >= 0)) && !replaced.starts_with(step.text);
  if (prefixed) {
    replaced.insert(0, step.text);
    if (begin >= 0) begin += static_cast<std::ptrdiff_t>(step.text.size());
  }
  try {
    if (!step.splits) return split_from(index + 1, replaced, begin, call);
    for (const Segment& segment : apply_behavior(match_literal(replaced, step.text), SplitBehavior::MergedWithNext)) {
      const auto part = std::string_view(replaced).substr(segment.begin, segment.end - segment.begin);
      split_from(index + 1, part, begin - static_cast<std::ptrdiff_t>(segment.begin), call);
    }
  } catch (UnknownCharacter& unknown) {
    const std::size_t units = count_units(replaced.data(), unknown.at);
    unknown.at = find_unit(text, units - (prefixed && units > 0 ? 1 : 0));
    throw;
  }
}

template <class Call>
void PreTokenizer::split_byte_level(std::size_t index, std::string_view text, std::ptrdiff_t begin, Call& call) const {
  const Step& step = steps_[index];
  const auto split_whole = [&](std::string_view whole, std::ptrdiff_t begin_of_whole) {
    split_words(step.pattern, whole, [&](std::string_view segment) {
      // After the last step words are bytes, which the model takes directly.
      if (index + 1 == steps_.size()) return call(segment);
      split_alphabet(index, segment, begin_of_whole - (segment.data() - whole.data()), call);
    });
  };
  if (!step.prefix || text.starts_with(' ')) return split_whole(text, begin);
  const std::string prefixed = ' ' + std::string(text);
  try {
    split_whole(prefixed, begin < 0 ? begin : begin + 1);
  } catch (UnknownCharacter& unknown) {
    const auto bytes = static_cast<std::size_t>(unknown.at - prefixed.data());
    unknown.at = text.data() + bytes - (bytes > 0 ? 1 : 0);
    throw;
  }
}

/// Continues with the characters that represent bytes.
template <class Call>
void PreTokenizer::split_alphabet(std::size_t index, std::string_view text, std::ptrdiff_t begin, Call& call) const {
  const std::string written = written_bytes(text);
  if (begin >= 0 && static_cast<std::size_t>(begin) < text.size()) {
    // All representations of a character's bytes count as its position.
    const std::size_t bytes = static_cast<std::size_t>(begin) + utf8_unit(text, static_cast<std::size_t>(begin)).bytes;
    begin = static_cast<std::ptrdiff_t>(written_bytes(text.substr(0, bytes - 1)).size());
  }
  try {
    split_from(index + 1, written, begin, call);
  } catch (UnknownCharacter& unknown) {
    unknown.at = text.data() + count_units(written.data(), unknown.at);
    throw;
  }
}

template <class Next>
void PreTokenizer::split_words(const SplitPattern* pattern, std::string_view text, const Next& next) {
  if (pattern == nullptr) return next(text);
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = match_word(*pattern, text, at);
    next(text.substr(at, end - at));
    at = end;
  }
}

inline SplitBehavior read_behavior(const JsonField& field) {
  return static_cast<SplitBehavior>(
      field.choice({"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"}));
}

inline void PreTokenizer::add(const JsonField& field) {
  if (field.is_null()) return;
  if (steps_.size() >= 16) field.refuse("a 17th step", "at most 16 steps");
  switch (field["type"].choice({"ByteLevel", "Split", "Metaspace", "Digits", "Sequence", "Punctuation", "Whitespace",
                                "WhitespaceSplit", "BertPreTokenizer", "CharDelimiterSplit", "UnicodeScripts",
                                "FixedLength"})) {
    case 0: {
      growth_.check(field["type"], 2);
      Step& step = add_step(Step::Kind::ByteLevel);
      step.prefix = field["add_prefix_space"].boolean();
      if (field["use_regex"].boolean_or(true)) step.pattern = &split_patterns[0];
      break;
    }
    case 1:
      add_split(field);
      break;
    case 2:
      add_metaspace(field);
      break;
    case 3:
      add_characters(is_number,
                     field["individual_digits"].boolean() ? SplitBehavior::Isolated : SplitBehavior::Contiguous);
      break;
    case 4:
      for (const JsonField& part : field["pretokenizers"].elements()) add(part);
      break;
    case 5:
      add_characters(is_punctuation,
                     field["behavior"].is_null() ? SplitBehavior::Isolated : read_behavior(field["behavior"]));
      break;
    case 6:
      add_step(Step::Kind::Words).behavior = SplitBehavior::Removed;
      break;
    case 7:
      add_characters(is_space, SplitBehavior::Removed);
      break;
    case 8:
      add_characters(is_space, SplitBehavior::Removed);
      add_characters(is_punctuation, SplitBehavior::Isolated);
      break;
    case 9: {
      Step& step = add_step(Step::Kind::Literal);
      step.text = one_character(field["delimiter"]);
      step.behavior = SplitBehavior::Removed;
      break;
    }
    case 10:
      add_step(Step::Kind::Scripts).scripts = std::make_shared<const ScriptSplitter>();
      break;
    default:
      add_step(Step::Kind::FixedLength).length = field["length"].is_null() ? 5 : field["length"].integer(1 << 30);
      if (steps_.back().length == 0) field["length"].refuse("1 or more");
  }
}

inline void PreTokenizer::add_metaspace(const JsonField& field) {
  growth_.check(field["type"], 2);  // for segments of one character
  Step& step = add_step(Step::Kind::Metaspace);
  step.text = one_character(field["replacement"]);
  const JsonField scheme = field["prepend_scheme"];
  const std::size_t which = scheme.is_null() ? 0 : scheme.choice({"always", "first", "never"});
  if (!field["add_prefix_space"].boolean_or(true) && which != 2 && !scheme.is_null()) {
    field["add_prefix_space"].refuse("true, or the prepend_scheme never");
  }
  step.prefix = which == 0 && field["add_prefix_space"].boolean_or(true);
  step.prefix_first = which == 1;
  step.splits = field["split"].boolean_or(true);
}

inline void PreTokenizer::add_split(const JsonField& field) {
  const JsonField regex = field["pattern"]["Regex"];
  Step& step = add_step(Step::Kind::Literal);
  if (regex.is_null()) {
    step.text = read_literal(field["pattern"]);
  } else if (const SplitPattern* known = find_split_pattern(regex.string())) {
    step.kind = Step::Kind::Pattern;
    step.pattern = known;
  } else {
    step.kind = Step::Kind::Expression;
    step.expression = read_regex(regex);
  }
  step.behavior = read_behavior(field["behavior"]);
  step.invert = field["invert"].boolean();
}

}  // namespace moe_mamba::inline v0_2::detail
