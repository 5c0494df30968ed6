#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moe_mamba/tokenizers/character_properties.hpp"

/// Parses regular expressions in Oniguruma's Ruby syntax, as tokenizer files have them, into a tree.
namespace moe_mamba::inline v0_2::detail {

/// Why an expression is rejected.
struct RegexError {
  std::size_t at;  // byte of the expression
  std::string problem, allowed;
};

enum class RegexAssertion { TextBegin, TextEnd, TextEndOrNewline, LineBegin, LineEnd, WordBoundary, NoWordBoundary };

struct RegexNode {
  enum class Kind { Set, Sequence, Alternatives, Repeat, LookAhead, LookBehind, Atomic, Assertion };
  static constexpr std::uint32_t unbounded = 0xffffffff;

  Kind kind = Kind::Sequence;  // an empty one matches nothing, anywhere
  std::vector<RegexNode> children;
  std::uint32_t set = 0;              // of Set: its number
  std::uint32_t least = 1, most = 1;  // of Repeat
  bool greedy = true, possessive = false;
  bool negative = false;  // of lookahead and lookbehind
  RegexAssertion assertion = RegexAssertion::TextBegin;
};

struct RegexTree {
  RegexNode root;
  std::vector<CharacterSet> sets;
};

class RegexParser {
 public:
  RegexParser(std::string_view text, const CharacterProperties& properties) : text_(text), properties_(properties) {}

  RegexTree parse() {
    if (text_.size() > most_bytes) throw RegexError{most_bytes, "too long", "at most 16384 bytes"};
    RegexNode root = alternatives({});
    if (at_ < text_.size()) fail("an unmatched )", "balanced parentheses");
    tree_.root = std::move(root);
    return std::move(tree_);
  }

 private:
  static constexpr std::size_t deepest = 50, most_bytes = 16384;
  static constexpr std::uint32_t most_repetitions = 1000;

  struct Flags {
    bool any_case = false, dot_all = false, extended = false;
  };

  [[noreturn]] void fail(const std::string& problem, const std::string& allowed) const {
    throw RegexError{at_, problem, allowed};
  }
  bool more() const { return at_ < text_.size(); }
  bool accept(std::string_view token) {
    if (text_.substr(at_, token.size()) != token) return false;
    at_ += token.size();
    return true;
  }
  void expect(std::string_view token) {
    if (!accept(token)) fail(more() ? "an unexpected character" : "the end of the expression", std::string(token));
  }
  char32_t next() {
    const Utf8Unit unit = utf8_unit(text_, at_);
    at_ += unit.bytes;
    return unit.code;
  }

  RegexNode alternatives(Flags flags);
  RegexNode sequence(Flags& flags);
  RegexNode atom(Flags& flags);
  RegexNode group(Flags& flags);
  RegexNode escape(Flags flags);
  RegexNode repeated(RegexNode node, Flags flags);
  void skip_extended();
  bool interval(std::uint32_t& least, std::uint32_t& most);

  CharacterSet bracket(Flags flags);
  CharacterSet bracket_content();
  CharacterSet property(bool negative, bool in_brackets);
  CharacterSet posix();
  bool set_escape(CharacterSet& set, bool in_brackets);
  char32_t character_escape();
  char32_t digits(std::uint32_t base, std::size_t least, std::size_t most);

  static RegexNode assertion(RegexAssertion which) {
    RegexNode node;
    node.kind = RegexNode::Kind::Assertion;
    node.assertion = which;
    return node;
  }
  RegexNode set(CharacterSet characters) {
    RegexNode node;
    node.kind = RegexNode::Kind::Set;
    node.set = static_cast<std::uint32_t>(tree_.sets.size());
    tree_.sets.push_back(std::move(characters));
    return node;
  }
  CharacterSet fold(const CharacterSet& characters) const { return characters | properties_.fold(characters); }
  RegexNode literal(char32_t c, Flags flags) {
    return set(flags.any_case ? fold(CharacterSet::of(c)) : CharacterSet::of(c));
  }

  std::string_view text_;
  const CharacterProperties& properties_;
  std::size_t at_ = 0, depth_ = 0;
  RegexTree tree_;
};

inline RegexNode RegexParser::alternatives(Flags flags) {
  if (++depth_ > deepest) fail("nested deeper than 50", "at most 50 levels");
  RegexNode node;
  node.kind = RegexNode::Kind::Alternatives;
  do {
    node.children.push_back(sequence(flags));
  } while (accept("|"));
  --depth_;
  return node.children.size() == 1 ? std::move(node.children[0]) : node;
}

inline RegexNode RegexParser::sequence(Flags& flags) {
  RegexNode node;
  for (;;) {
    if (flags.extended) skip_extended();
    if (!more() || text_[at_] == '|' || text_[at_] == ')') return node;
    RegexNode child = atom(flags);
    node.children.push_back(repeated(std::move(child), flags));
  }
}

inline void RegexParser::skip_extended() {
  while (more()) {
    if (text_[at_] == '#') {
      while (more() && text_[at_] != '\n') ++at_;
    } else if (!is_space(static_cast<unsigned char>(text_[at_])) || static_cast<unsigned char>(text_[at_]) >= 128) {
      return;
    } else {
      ++at_;
    }
  }
}

inline RegexNode RegexParser::atom(Flags& flags) {
  switch (text_[at_]) {
    case '(':
      return group(flags);
    case '[':
      ++at_;
      return set(bracket(flags));
    case '.':
      ++at_;
      return set(flags.dot_all ? CharacterSet::all() : ~CharacterSet::of('\n'));
    case '^':
      ++at_;
      return assertion(RegexAssertion::LineBegin);
    case '$':
      ++at_;
      return assertion(RegexAssertion::LineEnd);
    case '\\':
      return escape(flags);
    case '*':
    case '+':
    case '?':
      fail("nothing to repeat", "an expression before it");
    default:
      return literal(next(), flags);
  }
}

inline RegexNode RegexParser::group(Flags& flags) {
  using Kind = RegexNode::Kind;
  RegexNode node;
  ++at_;
  if (!accept("?") || accept(":")) {
    node = alternatives(flags);
  } else if (accept("#")) {
    while (more() && text_[at_] != ')') at_ += text_[at_] == '\\' ? 2u : 1u;
    at_ = at_ < text_.size() ? at_ : text_.size();
  } else if (accept(">")) {
    node.kind = Kind::Atomic;
    node.children.push_back(alternatives(flags));
  } else if (text_.substr(at_, 1) == "=" || text_.substr(at_, 1) == "!") {
    node.kind = Kind::LookAhead;
    node.negative = text_[at_++] == '!';
    node.children.push_back(alternatives(flags));
  } else if (text_.substr(at_, 2) == "<=" || text_.substr(at_, 2) == "<!") {
    node.kind = Kind::LookBehind;
    node.negative = text_[at_ + 1] == '!';
    at_ += 2;
    node.children.push_back(alternatives(flags));
  } else if (accept("<")) {  // a group's name, which is ignored
    const std::size_t end = text_.find('>', at_);
    if (end == text_.npos || end == at_) fail("a group without a name", "(?<name>...)");
    at_ = end + 1;
    node = alternatives(flags);
  } else {
    Flags changed = flags;
    for (bool on = true; more() && text_[at_] != ')' && text_[at_] != ':'; ++at_) {
      const char c = text_[at_];
      if (c == '-')
        on = false;
      else if (c == 'i')
        changed.any_case = on;
      else if (c == 'm')
        changed.dot_all = on;
      else if (c == 'x')
        changed.extended = on;
      else
        fail("an unsupported kind of group",
             "groups, named ones, (?:), (?=), (?!), (?<=), (?<!), (?>), and options i, m and x");
    }
    if (accept(":")) {
      node = alternatives(changed);
    } else if (more()) {  // for the rest of the enclosing group, including its alternatives
      ++at_;
      return alternatives(changed);
    }
  }
  expect(")");
  return node;
}

inline RegexNode RegexParser::repeated(RegexNode node, Flags flags) {
  for (;;) {
    if (flags.extended) skip_extended();
    std::uint32_t least = 0, most = RegexNode::unbounded;
    bool is_interval = false;
    if (accept("*")) {
    } else if (accept("+")) {
      least = 1;
    } else if (accept("?")) {
      most = 1;
    } else if (interval(least, most)) {
      is_interval = true;
    } else {
      return node;
    }
    RegexNode outer;
    outer.kind = RegexNode::Kind::Repeat;
    outer.least = least;
    outer.most = most;
    if (is_interval && least == most && accept("?")) {  // {n}? is none or n
      outer.children.push_back(std::move(node));
      node = std::exchange(outer, RegexNode());
      outer.kind = RegexNode::Kind::Repeat;
      outer.least = 0;
    } else if (accept("?")) {
      outer.greedy = false;
    } else if (!is_interval && accept("+")) {  // after {n,m} it is another repetition
      outer.possessive = true;
    }
    // A repetition of an optional unbounded repetition, as in (a*)*, is equivalent to the inner one.
    const bool reduces = node.kind == RegexNode::Kind::Repeat && node.greedy && outer.greedy && !node.possessive &&
                         node.least <= 1 && (node.most == RegexNode::unbounded || node.most == 1) &&
                         outer.most == RegexNode::unbounded && outer.least <= 1;
    if (reduces) {
      outer.least = std::min(outer.least, node.least);
      RegexNode inner = std::move(node.children[0]);
      node = std::move(inner);
    }
    outer.children.push_back(std::move(node));
    node = std::move(outer);
  }
}

/// {n}, {n,}, {,m}, {n,m}; anything else in braces is text.
inline bool RegexParser::interval(std::uint32_t& least, std::uint32_t& most) {
  const std::size_t begin = at_;
  const auto number = [&](std::uint32_t& value) {
    const std::size_t first = at_;
    value = 0;
    for (; more() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      value = value * 10 + static_cast<std::uint32_t>(text_[at_] - '0');
      if (value > most_repetitions) fail("more than 1000 repetitions", "at most 1000");
    }
    return at_ > first;
  };
  if (accept("{")) {
    std::uint32_t low = 0, high = 0;
    const bool has_low = number(low);
    if (!accept(",")) {
      high = low;
    } else if (!number(high)) {
      high = RegexNode::unbounded;
      if (!has_low) low = high = 0, at_ = begin;
    }
    if (at_ > begin && (has_low || high != RegexNode::unbounded) && accept("}")) {
      if (low > high) fail("a reversed interval", "{n,m} with n <= m");
      least = low;
      most = high;
      return true;
    }
  }
  at_ = begin;
  return false;
}

}  // namespace moe_mamba::inline v0_2::detail
