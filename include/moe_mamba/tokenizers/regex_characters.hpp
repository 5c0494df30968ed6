#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "moe_mamba/tokenizers/regex_syntax.hpp"

/// Parses the characters of regular expressions: escapes and bracket expressions.
namespace moe_mamba::inline v0_2::detail {

/// The number of a code point in that base.
inline char32_t RegexParser::digits(std::uint32_t base, std::size_t least, std::size_t most) {
  char32_t value = 0;
  std::size_t count = 0;
  for (; count < most && more(); ++count, ++at_) {
    const char c = text_[at_];
    const std::uint32_t digit = c >= '0' && c <= '9'   ? static_cast<std::uint32_t>(c - '0')
                                : c >= 'a' && c <= 'f' ? static_cast<std::uint32_t>(c - 'a' + 10)
                                : c >= 'A' && c <= 'F' ? static_cast<std::uint32_t>(c - 'A' + 10)
                                                       : base;
    if (digit >= base) break;
    value = value * base + digit;
    if (value > last_character) fail("a number beyond Unicode", "0 to 10FFFF");
  }
  if (count < least) fail("an escape without digits", std::to_string(least) + " digits or more");
  return value;
}

/// A single character after a backslash.
inline char32_t RegexParser::character_escape() {
  if (!more()) fail("the end of the expression", "a character after \\");
  const char c = text_[at_];
  const bool is_ascii = static_cast<unsigned char>(c) < 128;
  const bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '1' && c <= '9');
  if (!is_ascii || (!is_letter && c != '0')) return next();
  ++at_;
  switch (c) {
    case 't':
      return '\t';
    case 'n':
      return '\n';
    case 'r':
      return '\r';
    case 'f':
      return '\f';
    case 'v':
      return '\v';
    case 'a':
      return '\a';
    case 'e':
      return 0x1b;
    case '0':
      return digits(8, 0, 2);
    case 'u':
      return digits(16, 4, 4);
    case 'x': {
      const bool braces = accept("{");
      const char32_t value = digits(16, 1, braces ? 8 : 2);
      if (braces) expect("}");
      if (!braces && value >= 128) fail("a byte outside ASCII", "\\x{...} or \\u....");
      return value;
    }
    default:
      --at_;
      fail("the escape \\" + std::string(1, c),
           "\\d \\w \\s \\h \\R \\N \\O \\p{...} \\b \\A \\z \\Z, negated ones, and characters");
  }
}

/// An escape for a set, if it is one.
inline bool RegexParser::set_escape(CharacterSet& set, bool in_brackets) {
  if (at_ + 1 >= text_.size()) return false;
  const char c = text_[at_ + 1];
  switch (c) {
    case 'd':
    case 'D':
      set = properties_.category("Nd");
      break;
    case 'w':
    case 'W':
      set = in_brackets ? properties_.posix_word() : properties_.word();
      break;
    case 's':
    case 'S':
      set = properties_.space();
      break;
    case 'h':
    case 'H':
      set = parse_ranges("30-39 41-46 61-66");
      break;
    case 'p':
    case 'P':
      if (text_.substr(at_ + 2, 1) != "{") fail("a property without braces", "\\p{...}");
      at_ += 3;
      set = property(c == 'P', in_brackets);
      return true;
    default:
      return false;
  }
  at_ += 2;
  if (c < 'a') set = ~set;
  return true;
}

/// After "\p{".
inline CharacterSet RegexParser::property(bool negative, bool in_brackets) {
  if (accept("^")) negative = !negative;
  const std::size_t end = text_.find('}', at_);
  if (end == text_.npos) fail("an unmatched {", "\\p{...}");
  auto set = properties_.find(text_.substr(at_, end - at_));
  if (set && in_brackets && CharacterProperties::plain(text_.substr(at_, end - at_)) == "word") {
    set = properties_.posix_word();
  }
  if (!set)
    fail("an unknown property", "general categories, scripts, and classes such as Alpha, Digit, Punct, Space, Emoji");
  at_ = end + 1;
  return negative ? ~*set : *set;
}

inline RegexNode RegexParser::escape(Flags flags) {
  CharacterSet characters;
  if (set_escape(characters, false)) return set(std::move(characters));
  const std::string_view two = text_.substr(at_, 2);
  const auto is = [&](std::string_view name) { return two == name && accept(name); };
  if (is("\\b")) return assertion(RegexAssertion::WordBoundary);
  if (is("\\B")) return assertion(RegexAssertion::NoWordBoundary);
  if (is("\\A")) return assertion(RegexAssertion::TextBegin);
  if (is("\\z")) return assertion(RegexAssertion::TextEnd);
  if (is("\\Z")) return assertion(RegexAssertion::TextEndOrNewline);
  if (is("\\N")) return set(~CharacterSet::of('\n'));
  if (is("\\O")) return set(CharacterSet::all());
  if (is("\\R")) {
    RegexNode node, both, any;
    both.children.push_back(set(CharacterSet::of('\r')));
    both.children.push_back(set(CharacterSet::of('\n')));
    any.kind = RegexNode::Kind::Alternatives;
    any.children.push_back(std::move(both));
    any.children.push_back(set(parse_ranges("a-d 85 2028-2029")));
    node.kind = RegexNode::Kind::Atomic;
    node.children.push_back(std::move(any));
    return node;
  }
  ++at_;
  return literal(character_escape(), flags);
}

/// After "[": up to its "]".
inline CharacterSet RegexParser::bracket(Flags flags) {
  if (++depth_ > deepest) fail("nested deeper than 50", "at most 50 levels");
  const bool negative = accept("^");
  CharacterSet all = bracket_content();
  while (accept("&&")) all = all & bracket_content();
  expect("]");
  --depth_;
  if (flags.any_case) all = fold(all);
  return negative ? ~all : all;
}

/// Up to "]" or "&&", including nested brackets.
inline CharacterSet RegexParser::bracket_content() {
  std::vector<CharacterSet::Range> ranges;
  bool bytes = false;
  const auto unite = [&](const CharacterSet& set) {
    ranges.insert(ranges.end(), set.ranges().begin(), set.ranges().end());
    bytes = bytes || set.contains(no_character);
  };
  char32_t before = no_character;  // a character that may begin a range
  const std::size_t begin = at_;
  const auto add = [&](char32_t c) {
    ranges.push_back({c, c});
    before = c;
  };
  for (bool any = false; more(); any = true) {
    const std::string_view two = text_.substr(at_, 2);
    CharacterSet inner;
    if (two == "&&") return CharacterSet(std::move(ranges), bytes);
    if (two.front() == ']' &&
        (any || text_.find(']', at_ + 1) == text_.npos || (begin > 0 && text_[begin - 1] == '&'))) {
      if (!any) fail("empty brackets", "characters in brackets");
      return CharacterSet(std::move(ranges), bytes);
    }
    if (two == "[:") {
      unite(posix());
      before = no_character;
    } else if (two.front() == '[') {
      ++at_;
      unite(bracket({}));
      before = no_character;
    } else if (two.front() == '\\' && set_escape(inner, true)) {
      unite(inner);
      before = no_character;
    } else if (two.front() == '-' && before != no_character && two != "-]" && two != "-[" &&
               text_.substr(at_, 3) != "-&&") {
      ++at_;
      if (more() && text_[at_] == '\\' && set_escape(inner, true))
        fail("a range up to a set", "a character after the -");
      const bool escaped = accept("\\");
      const char32_t last = escaped ? (accept("b") ? char32_t{'\b'} : character_escape()) : next();
      if (last < before) fail("a reversed range", "first-last with first <= last");
      ranges.push_back({before, last});
      before = no_character;
    } else if (accept("\\")) {
      add(accept("b") ? char32_t{'\b'} : character_escape());
    } else {
      add(next());
    }
  }
  fail("an unmatched [", "a matching ]");
}

/// [:alpha:] or [:^alpha:], or else an inner bracket that begins with a colon.
inline CharacterSet RegexParser::posix() {
  const std::size_t end = text_.find(":]", at_ + 2);
  if (end == text_.npos || end - at_ > 20) {
    ++at_;
    return bracket({});
  }
  at_ += 2;
  const bool negative = accept("^");
  const auto set = properties_.find_posix(text_.substr(at_, end - at_));
  if (!set)
    fail("an unknown class",
         "alnum, alpha, ascii, blank, cntrl, digit, graph, lower, print, punct, space, upper, word, xdigit");
  at_ = end + 2;
  return negative ? ~*set : *set;
}

}  // namespace moe_mamba::inline v0_2::detail
