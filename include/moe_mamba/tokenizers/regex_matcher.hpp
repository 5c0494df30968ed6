#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "moe_mamba/tokenizers/regex.hpp"

namespace moe_mamba::inline v0_2::detail {

/// Finds the matches of an expression in a text, from left to right. Once an expression turns out to backtrack a lot,
/// failures are memoised, so that the time is linear in the text's size for every expression.
class RegexMatcher {
 public:
  RegexMatcher(const Regex& regex, std::string_view text) : regex_(regex), text_(text) {}

  /// Calls match(begin, end) for each match. An empty match does not begin at the end of the previous one.
  template <class Match>
  void for_each(const Match& match) {
    std::size_t last_end = text_.size() + 1;
    for (std::size_t at = 0; at <= text_.size();) {
      std::size_t begin = at, end = 0;
      while (!run(0, begin, Way{}, end)) {
        if (begin == text_.size()) return;
        begin += utf8_unit(text_, begin).bytes;
      }
      if (begin == end && end == last_end) {
        at = end < text_.size() ? end + utf8_unit(text_, end).bytes : end + 1;
        continue;
      }
      at = last_end = end;
      match(begin, end);
    }
  }

 private:
  using Code = RegexInstruction::Code;

  /// The purpose of a run: a match, a lookahead, or a lookbehind that must end at `end`.
  struct Way {
    bool ahead = false;
    std::optional<std::size_t> end;
  };
  struct Frame {
    enum class Kind : std::uint32_t { Branch, Mark, Run } kind;
    std::uint32_t instruction;
    std::uint32_t begin, at;  // of Run: first and current offset
  };
  static constexpr std::size_t block_size = 512;  // offsets per block of marks

  const RegexInstruction& instruction(std::uint32_t index) const { return regex_.program_[index]; }
  const CharacterSet& set(const RegexInstruction& of) const { return regex_.sets_[of.a]; }

  /// The end of the character at `at` if it belongs to the set, else `at`.
  std::size_t step(const CharacterSet& set, std::size_t at) const {
    if (at >= text_.size()) return at;
    const Utf8Unit unit = utf8_unit(text_, at);
    return set.contains(unit.code) ? at + unit.bytes : at;
  }
  bool run(std::uint32_t from, std::size_t at, const Way& way, std::size_t& end);
  std::size_t skip(const RegexInstruction& instruction, std::size_t at);
  bool look_behind(std::uint32_t index, std::size_t at);
  bool holds(RegexAssertion assertion, std::size_t at) const;
  std::optional<std::size_t> begin_run(std::uint32_t index, std::size_t at, const Way& way, bool& accepted);
  bool retreat(std::uint32_t& index, std::size_t& at, std::size_t base, const Way& way);
  void mark_success(std::size_t base);

  /// Whether a memo has a mark at an offset: of failure or of success.
  bool marked(bool success, std::uint32_t memory, std::size_t at) const {
    if (at / block_size >= marks_.size() || marks_[at / block_size].empty()) return false;
    const std::size_t bit = bit_of(success, memory, at);
    return (marks_[at / block_size][bit / 64] >> (bit % 64) & 1) != 0;
  }
  void mark(bool success, std::uint32_t memory, std::size_t at) {
    if (marks_.empty()) marks_.resize(text_.size() / block_size + 1);
    auto& block = marks_[at / block_size];
    if (block.empty()) block.resize(std::size_t{2} * regex_.memories_ * block_size / 64);
    const std::size_t bit = bit_of(success, memory, at);
    block[bit / 64] |= std::uint64_t{1} << (bit % 64);
  }
  std::size_t bit_of(bool success, std::uint32_t memory, std::size_t at) const {
    return (std::size_t{2} * memory + (success ? 1 : 0)) * block_size + at % block_size;
  }

  /// Counts steps; above a budget proportional to the text read, memoisation starts.
  void count(std::size_t at) {
    farthest_ = at > farthest_ ? at : farthest_;
    remembers_ = remembers_ || ++steps_ > 1000 + 32 * farthest_;
  }

  const Regex& regex_;
  std::string_view text_;
  std::vector<Frame> stack_;
  struct Skipped {
    std::size_t begin = 0, end = 0;
  };
  std::vector<Skipped> skipped_;  // by memo
  std::vector<std::vector<std::uint64_t>> marks_;
  std::size_t steps_ = 0, farthest_ = 0;
  bool remembers_ = false;
};

inline bool RegexMatcher::holds(RegexAssertion assertion, std::size_t at) const {
  const auto is_word = [&](std::size_t index) { return regex_.word_.contains(utf8_unit(text_, index).code); };
  switch (assertion) {
    case RegexAssertion::TextBegin:
      return at == 0;
    case RegexAssertion::TextEnd:
      return at == text_.size();
    case RegexAssertion::TextEndOrNewline:
      return at == text_.size() || (at + 1 == text_.size() && text_[at] == '\n');
    case RegexAssertion::LineBegin:
      return at == 0 || (text_[at - 1] == '\n' && at < text_.size());
    case RegexAssertion::LineEnd:
      return at == text_.size() || text_[at] == '\n';
    default: {
      const bool left = at > 0 && is_word(unit_before(text_, at)), right = at < text_.size() && is_word(at);
      return (left != right) == (assertion == RegexAssertion::WordBoundary);
    }
  }
}

/// The end of the characters of a set, up to the maximum number.
inline std::size_t RegexMatcher::skip(const RegexInstruction& instruction, std::size_t at) {
  const bool endless = instruction.b == RegexNode::unbounded;
  if (endless && skipped_.empty()) skipped_.resize(regex_.memories_);
  // A range that was skipped before has the same end from any offset inside it.
  if (endless && at >= skipped_[instruction.memory].begin && at < skipped_[instruction.memory].end) {
    return skipped_[instruction.memory].end;
  }
  const std::size_t begin = at;
  for (std::uint32_t i = 0; i < instruction.b; ++i) {
    const std::size_t next = step(set(instruction), at);
    if (next == at) break;
    count(next);
    at = next;
  }
  if (endless) skipped_[instruction.memory] = {begin, at};
  return at;
}

inline bool RegexMatcher::look_behind(std::uint32_t index, std::size_t at) {
  const RegexInstruction& look = instruction(index);
  std::size_t begin = at, end = 0;
  for (std::uint32_t length = 0; length <= look.memory; ++length) {
    if (length >= look.b && run(index + 1, begin, Way{false, at}, end)) return true;
    if (begin == 0) return false;
    begin = unit_before(text_, begin);
  }
  return false;
}

/// Matches as many characters as possible and pushes a frame for fewer. None if it is known to fail.
inline std::optional<std::size_t> RegexMatcher::begin_run(std::uint32_t index, std::size_t at, const Way& way,
                                                          bool& accepted) {
  const RegexInstruction& run = instruction(index);
  std::size_t end = at;
  bool failed = false;
  for (;;) {
    if (remembers_ && !way.end) {
      failed = marked(false, run.memory, end);
      accepted = way.ahead && marked(true, run.memory, end);
      if (failed || accepted) break;
    }
    const std::size_t next = step(set(run), end);
    if (next == end) break;
    count(next);
    end = next;
  }
  if (failed && end == at) return std::nullopt;
  if (failed) end = unit_before(text_, end);
  stack_.push_back({Frame::Kind::Run, index, static_cast<std::uint32_t>(at), static_cast<std::uint32_t>(end)});
  return end;
}

/// Backtracks to the last alternative, down to a size of the stack.
inline bool RegexMatcher::retreat(std::uint32_t& index, std::size_t& at, std::size_t base, const Way& way) {
  while (stack_.size() > base) {
    Frame& frame = stack_.back();
    index = frame.instruction;
    at = frame.at;
    if (frame.kind == Frame::Kind::Branch) {
      stack_.pop_back();
      return true;
    }
    if (remembers_ && !way.end) mark(false, instruction(index).memory, at);
    if (frame.kind == Frame::Kind::Run && frame.at > frame.begin) {
      at = unit_before(text_, at);
      frame.at = static_cast<std::uint32_t>(at);
      ++index;
      return true;
    }
    stack_.pop_back();
  }
  return false;
}

/// Memoises the success of all offsets on the path to the end of a lookahead.
inline void RegexMatcher::mark_success(std::size_t base) {
  for (std::size_t i = base; i < stack_.size(); ++i) {
    const Frame& frame = stack_[i];
    if (frame.kind == Frame::Kind::Branch) continue;
    const std::uint32_t memory = instruction(frame.instruction).memory;
    std::size_t offset = frame.at;
    mark(true, memory, offset);
    while (frame.kind == Frame::Kind::Run && offset > frame.begin) {
      offset = unit_before(text_, offset);
      mark(true, memory, offset);
    }
  }
}

/// Whether the program matches from an instruction and an offset on, and where it ends.
inline bool RegexMatcher::run(std::uint32_t from, std::size_t at, const Way& way, std::size_t& end) {
  const std::size_t base = stack_.size();
  std::uint32_t index = from;
  for (;;) {
    const RegexInstruction& now = instruction(index);
    bool fails = false, accepted = false;
    count(at);
    switch (now.code) {
      case Code::Set: {
        const std::size_t next = step(set(now), at);
        fails = next == at;
        at = next;
        ++index;
        break;
      }
      case Code::Run: {
        const auto run_end = begin_run(index, at, way, accepted);
        fails = !run_end;
        at = run_end.value_or(at);
        ++index;
        break;
      }
      case Code::Skip:
        at = skip(now, at);
        ++index;
        break;
      case Code::Split:
        if (remembers_ && !way.end) {
          fails = marked(false, now.memory, at);
          accepted = !fails && way.ahead && marked(true, now.memory, at);
          if (fails || accepted) break;
          stack_.push_back({Frame::Kind::Mark, index, 0, static_cast<std::uint32_t>(at)});
        }
        stack_.push_back({Frame::Kind::Branch, now.b, 0, static_cast<std::uint32_t>(at)});
        index = now.a;
        break;
      case Code::Jump:
        index = now.a;
        break;
      case Code::LookAhead: {
        std::size_t ignored = 0;
        fails = run(index + 1, at, Way{true, std::nullopt}, ignored) == now.negative;
        index = now.a;
        break;
      }
      case Code::LookBehind:
        fails = look_behind(index, at) == now.negative;
        index = now.a;
        break;
      case Code::Atomic:
        fails = !run(index + 1, at, Way{}, at);
        index = now.a;
        break;
      case Code::Assertion:
        fails = !holds(now.assertion, at);
        ++index;
        break;
      case Code::Accept:
        fails = way.end && at != *way.end;
        accepted = !fails;
        break;
    }
    if (accepted) {
      if (way.ahead && remembers_) mark_success(base);
      stack_.resize(base);
      end = at;
      return true;
    }
    if (fails && !retreat(index, at, base, way)) return false;
  }
}

}  // namespace moe_mamba::inline v0_2::detail
