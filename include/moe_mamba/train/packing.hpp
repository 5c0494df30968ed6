#pragma once

#include <algorithm>
#include <compare>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/cross_entropy.hpp"
#include "moe_mamba/train/batch.hpp"

/// Sequences of different lengths in one batch: packed end to end, so that no work is done for padding.
namespace moe_mamba::inline v0_2 {

/// A batch that owns its tokens. It may be reused; its memory grows to that of the largest content so far. A call that throws,
/// including std::bad_alloc, leaves the batch unchanged. Added sequences may be part of the batch itself.
class PackedBatch {
 public:
  /// Removes all sequences.
  void clear() {
    inputs_.clear();
    targets_.clear();
    lengths_.clear();
  }

  /// Adds a text of which every token but the last is an input and every token but the first the target of the one before
  /// it. Its first `prompt` tokens are not targets: they are masked, so that the continuation of the prompt is learned. Throws
  /// std::invalid_argument for a text of fewer than 2 tokens and for a prompt that leaves no target, and std::out_of_range
  /// for a negative last token, which would be a masked target.
  void add(std::span<const Token> text, Index prompt = 1) {
    require(text.size() >= 2, "text.size()", text.size(), "2 or more tokens");
    const auto last = static_cast<Index>(text.size()) - 1;
    require(prompt >= 1 && prompt <= last, "prompt", prompt,
            [&] { return detail::range_text<Index>(1, last) + ", which leaves a target"; });
    require_range(text.back() >= 0, "the last token", text.back(), "0 or more");
    if (inside(text)) return add(copy(text), prompt);
    make_room(1, static_cast<std::size_t>(last));
    inputs_.insert(inputs_.end(), text.begin(), text.end() - 1);
    targets_.insert(targets_.end(), static_cast<std::size_t>(prompt - 1), masked_target);
    targets_.insert(targets_.end(), text.begin() + prompt, text.end());
    lengths_.push_back(last);
  }

  /// Adds a sequence with given targets, token ids or masked_target. Throws std::invalid_argument unless there are as many
  /// targets as inputs.
  void add(std::span<const Token> inputs, std::span<const Token> targets) {
    require(targets.size() == inputs.size(), "targets.size()", targets.size(),
            [&] { return std::to_string(inputs.size()) + ", as the inputs"; });
    if (inside(inputs) || inside(targets)) return add(copy(inputs), copy(targets));
    make_room(1, inputs.size());
    inputs_.insert(inputs_.end(), inputs.begin(), inputs.end());
    targets_.insert(targets_.end(), targets.begin(), targets.end());
    lengths_.push_back(static_cast<Index>(inputs.size()));
  }

  /// Adds the rows of a padded batch, (B, L), of which the first lengths[b] tokens are used. Throws
  /// std::invalid_argument if a size does not match.
  void add_padded(std::span<const Token> inputs, std::span<const Token> targets, Shape shape,
                  std::span<const Index> lengths) {
    require(static_cast<Index>(inputs.size()) == shape.tokens(), "inputs.size()", inputs.size(),
            [&] { return std::to_string(shape.tokens()) + ", for this shape"; });
    require(targets.size() == inputs.size(), "targets.size()", targets.size(),
            [&] { return std::to_string(inputs.size()) + ", as the inputs"; });
    require(static_cast<Index>(lengths.size()) == shape.batch, "lengths.size()", lengths.size(),
            [&] { return std::to_string(shape.batch) + ", the batch"; });
    for (const Index length : lengths) {
      require(length >= 0 && length <= shape.length, "a length", length,
              [&] { return detail::range_text<Index>(0, shape.length) + ", the padded length"; });
    }
    if (inside(inputs) || inside(targets) || inside(lengths))
      return add_padded(copy(inputs), copy(targets), shape, copy(lengths));
    make_room(lengths.size(), inputs.size());
    for (std::size_t b = 0; b < lengths.size(); ++b) {
      const std::size_t begin = b * static_cast<std::size_t>(shape.length), size = static_cast<std::size_t>(lengths[b]);
      add(inputs.subspan(begin, size), targets.subspan(begin, size));
    }
  }

  /// Number of sequences.
  Index size() const { return static_cast<Index>(lengths_.size()); }
  std::span<const Index> lengths() const { return lengths_; }
  Shape shape() const { return Shape::packed(lengths_); }

  /// The batch for a trainer; valid until this object is changed.
  TokenBatch batch() const { return {inputs_, targets_, shape(), false}; }

 private:
  template <class T>
  static std::vector<T> copy(std::span<const T> values) {
    return {values.begin(), values.end()};
  }
  /// Whether values are stored in this object, whose memory is reallocated when it grows.
  template <class T>
  bool inside(std::span<const T> values) const {
    const auto within = [&](const auto& own) {
      const auto before = [](const void* a, const void* b) { return std::is_lt(std::compare_three_way()(a, b)); };
      return !values.empty() && !before(values.data(), own.data()) &&
             before(values.data(), own.data() + own.capacity());
    };
    return within(inputs_) || within(targets_) || within(lengths_);
  }

  /// Reserves memory for this many more sequences and tokens.
  void make_room(std::size_t sequences, std::size_t tokens) {
    const auto grow = [](auto& values, std::size_t more) {
      const std::size_t wanted = values.size() + more;
      if (wanted > values.capacity()) values.reserve(std::max(wanted, 2 * values.capacity()));
    };
    grow(inputs_, tokens);
    grow(targets_, tokens);
    grow(lengths_, sequences);
  }

  std::vector<Token> inputs_, targets_;
  std::vector<Index> lengths_;
};

}  // namespace moe_mamba::inline v0_2
