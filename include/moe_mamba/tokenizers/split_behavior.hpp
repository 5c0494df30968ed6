#pragma once

#include <cstddef>
#include <string_view>
#include <utility>
#include <vector>

#include "moe_mamba/tokenizers/unicode.hpp"

/// A text as matched and unmatched segments, and the words formed from them.
namespace moe_mamba::inline v0_2::detail {

/// What happens to matched segments.
enum class SplitBehavior { Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous };

/// A segment of a text, and whether it is a match.
struct Segment {
  std::size_t begin, end;
  bool match;
};

/// Forms words from all segments of a text, in order. Words from empty matches are empty.
inline std::vector<Segment> apply_behavior(const std::vector<Segment>& segments, SplitBehavior behavior) {
  std::vector<Segment> words;
  bool previous = false;  // whether the previous segment was a match
  switch (behavior) {
    case SplitBehavior::Removed:
      for (const Segment& segment : segments) {
        if (!segment.match) words.push_back(segment);
      }
      break;
    case SplitBehavior::Isolated:
      words = segments;
      break;
    case SplitBehavior::Contiguous:
      for (const Segment& segment : segments) {
        if (segment.match == previous && !words.empty()) {
          words.back().end = segment.end;
        } else {
          words.push_back(segment);
        }
        previous = segment.match;
      }
      break;
    case SplitBehavior::MergedWithPrevious:
      for (const Segment& segment : segments) {
        if (segment.match && !previous && !words.empty()) {
          words.back().end = segment.end;
        } else {
          words.push_back(segment);
        }
        previous = segment.match;
      }
      break;
    case SplitBehavior::MergedWithNext:
      for (std::size_t i = 0; i < segments.size(); ++i) {
        // Of consecutive matches, the last one is merged with the next segment.
        const bool merges = segments[i].match && i + 1 < segments.size() && !segments[i + 1].match;
        words.push_back(segments[i]);
        if (merges) words.back().end = segments[++i].end;
      }
      break;
  }
  return words;
}

/// Collects matches, which must be added in order, and the segments between them.
class SegmentCollector {
 public:
  explicit SegmentCollector(std::size_t size) : size_(size) {}

  void add(std::size_t begin, std::size_t end) {
    if (begin > end_) segments_.push_back({end_, begin, false});
    segments_.push_back({begin, end, true});
    end_ = end;
  }
  std::vector<Segment> finish() {
    if (end_ < size_) segments_.push_back({end_, size_, false});
    return std::move(segments_);
  }

 private:
  std::vector<Segment> segments_;
  std::size_t size_, end_ = 0;
};

/// Matches of a string.
inline std::vector<Segment> match_literal(std::string_view text, std::string_view literal) {
  SegmentCollector segments(text.size());
  for (std::size_t at = 0; (at = text.find(literal, at)) != text.npos; at += literal.size()) {
    segments.add(at, at + literal.size());
  }
  return segments.finish();
}

/// Matches of single characters.
template <class Predicate>
std::vector<Segment> match_characters(std::string_view text, const Predicate& matches) {
  SegmentCollector segments(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Unit unit = utf8_unit(text, at);
    if (matches(unit.code)) segments.add(at, at + unit.bytes);
    at += unit.bytes;
  }
  return segments.finish();
}

}  // namespace moe_mamba::inline v0_2::detail
