#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "moe_mamba/tokenizers/regex_characters.hpp"

/// Regular expressions compiled to a program for a backtracking virtual machine.
namespace moe_mamba::inline v0_2::detail {

struct RegexInstruction {
  enum class Code : std::uint8_t {
    Set,         // one character of the set
    Run,         // any number of characters of the set, greedy; memo `memory`
    Skip,        // up to `b` characters of the set, possessive; memo `memory`
    Split,       // continues at `a`, on failure at `b`; memo `memory`
    Jump,        // to `a`
    LookAhead,   // tests the following instructions up to Accept; then continues at `a`
    LookBehind,  // the same for the `b` to `memory` characters before
    Atomic,      // matches the following instructions up to Accept without backtracking into them; continues at `a`
    Assertion,
    Accept
  };
  Code code;
  bool negative = false;
  RegexAssertion assertion = RegexAssertion::TextBegin;
  std::uint32_t a = 0, b = 0, memory = 0;  // a: index of the set, if there is one
};

/// A compiled expression. RegexMatcher finds its matches in a text.
class Regex {
 public:
  /// Throws RegexError.
  Regex(std::string_view text, const CharacterProperties& properties) {
    RegexTree tree = RegexParser(text, properties).parse();
    sets_ = std::move(tree.sets);
    word_ = properties.word();
    least_length_ = length(tree.root).least;
    add(tree.root);
    add({Code::Accept});
  }

  /// Whether a match has at least one character.
  bool takes_characters() const { return least_length_ > 0; }

 private:
  friend class RegexMatcher;
  using Code = RegexInstruction::Code;
  using Kind = RegexNode::Kind;
  static constexpr std::size_t most_instructions = 4000;
  static constexpr std::uint32_t unbounded = RegexNode::unbounded;

  /// Range of the number of characters of a match.
  struct Length {
    std::uint32_t least, most;
  };
  static Length length(const RegexNode& node);

  std::uint32_t size() const { return static_cast<std::uint32_t>(program_.size()); }
  RegexInstruction& add(RegexInstruction instruction) {
    if (program_.size() == most_instructions) throw RegexError{0, "too long", "an expression of at most 4000 steps"};
    return program_.emplace_back(instruction);
  }
  void add(const RegexNode& node);
  void add_alternatives(const RegexNode& node);
  void add_repeat(const RegexNode& node);
  void add_body(RegexInstruction head, const RegexNode& node);

  std::vector<RegexInstruction> program_;
  std::vector<CharacterSet> sets_;
  CharacterSet word_;
  std::uint32_t least_length_ = 0;
  std::uint32_t memories_ = 0;  // number of memos of Split, Run and Skip
};

inline Regex::Length Regex::length(const RegexNode& node) {
  const auto sum = [](std::uint64_t a, std::uint64_t b) {
    return static_cast<std::uint32_t>(std::min<std::uint64_t>(a + b, unbounded));
  };
  Length all{0, 0};
  switch (node.kind) {
    case Kind::Set:
      return {1, 1};
    case Kind::Sequence:
      for (const RegexNode& child : node.children) {
        const Length one = length(child);
        all = {sum(all.least, one.least), sum(all.most, one.most)};
      }
      return all;
    case Kind::Alternatives:
      all.least = unbounded;
      for (const RegexNode& child : node.children) {
        const Length one = length(child);
        all = {std::min(all.least, one.least), std::max(all.most, one.most)};
      }
      return all;
    case Kind::Repeat: {
      const Length one = length(node.children[0]);
      const auto times = [&](std::uint64_t count, std::uint64_t each) {
        return each == 0 ? 0 : static_cast<std::uint32_t>(std::min<std::uint64_t>(count * each, unbounded));
      };
      return {times(node.least, one.least), times(node.most, one.most)};
    }
    case Kind::Atomic:
      return length(node.children[0]);
    default:
      return all;
  }
}

inline void Regex::add(const RegexNode& node) {
  switch (node.kind) {
    case Kind::Set:
      add({.code = Code::Set, .a = node.set});
      break;
    case Kind::Sequence:
      for (const RegexNode& child : node.children) add(child);
      break;
    case Kind::Alternatives:
      add_alternatives(node);
      break;
    case Kind::Repeat:
      add_repeat(node);
      break;
    case Kind::LookAhead:
      add_body({.code = Code::LookAhead, .negative = node.negative}, node.children[0]);
      break;
    case Kind::LookBehind: {
      const Length range = length(node.children[0]);
      if (range.most > 255) throw RegexError{0, "an unbounded lookbehind", "one of at most 255 characters"};
      add_body({.code = Code::LookBehind, .negative = node.negative, .b = range.least, .memory = range.most},
               node.children[0]);
      break;
    }
    case Kind::Atomic:
      if (length(node.children[0]).most > 255) {
        throw RegexError{0, "an unbounded atomic group", "one of at most 255 characters"};
      }
      add_body({.code = Code::Atomic}, node.children[0]);
      break;
    case Kind::Assertion:
      add({.code = Code::Assertion, .assertion = node.assertion});
      break;
  }
}

/// An instruction followed by a body that ends with Accept; its `a` is the instruction after the body.
inline void Regex::add_body(RegexInstruction head, const RegexNode& node) {
  const std::uint32_t at = size();
  add(head);
  add(node);
  add({Code::Accept});
  program_[at].a = size();
}

inline void Regex::add_alternatives(const RegexNode& node) {
  std::vector<std::uint32_t> jumps;
  for (std::size_t i = 0; i < node.children.size(); ++i) {
    const bool last = i + 1 == node.children.size();
    const std::uint32_t split = size();
    if (!last) add({.code = Code::Split, .a = split + 1, .memory = memories_++});
    add(node.children[i]);
    if (last) break;
    jumps.push_back(size());
    add({Code::Jump});
    program_[split].b = size();
  }
  for (const std::uint32_t jump : jumps) program_[jump].a = size();
}

inline void Regex::add_repeat(const RegexNode& node) {
  const RegexNode& child = node.children[0];
  const bool is_set = child.kind == Kind::Set, endless = node.most == unbounded;
  if (node.possessive) {
    if (!is_set) {
      if (endless) throw RegexError{0, "an unbounded possessive repetition of a group", "one of a character class"};
      RegexNode atomic, plain = node;
      plain.possessive = false;
      atomic.kind = Kind::Atomic;
      atomic.children.push_back(std::move(plain));
      return add(atomic);
    }
    for (std::uint32_t i = 0; i < node.least; ++i) add(child);
    add({.code = Code::Skip, .a = child.set, .b = endless ? unbounded : node.most - node.least, .memory = memories_++});
    return;
  }
  for (std::uint32_t i = 0; i < node.least; ++i) add(child);
  if (endless && is_set && node.greedy) {
    add({.code = Code::Run, .a = child.set, .memory = memories_++});
    return;
  }
  const auto split = [&](std::uint32_t inside, std::uint32_t outside, std::uint32_t at) {
    program_[at].a = node.greedy ? inside : outside;
    program_[at].b = node.greedy ? outside : inside;
  };
  if (endless) {
    if (length(child).least == 0)
      throw RegexError{0, "an unbounded repetition of an expression that can be empty",
                       "one that matches at least a character"};
    const std::uint32_t at = size();
    add({.code = Code::Split, .memory = memories_++});
    add(child);
    add({.code = Code::Jump, .a = at});
    split(at + 1, size(), at);
    return;
  }
  std::vector<std::uint32_t> splits;
  for (std::uint32_t i = node.least; i < node.most; ++i) {
    splits.push_back(size());
    add({.code = Code::Split, .memory = memories_++});
    add(child);
  }
  for (const std::uint32_t at : splits) split(at + 1, size(), at);
}

}  // namespace moe_mamba::inline v0_2::detail
