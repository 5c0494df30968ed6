#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>
#include <vector>

#include "moe_mamba/core/random.hpp"
#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/masked_target.hpp"
#include "moe_mamba/train/batch.hpp"

/// The two synthetic tasks of section 4.1 of "Mamba" (Gu & Dao 2023, arXiv 2312.00752).
namespace mechanism {

using namespace moe_mamba;

inline constexpr Index vocabulary = 16;

enum class Task { selective_copying, induction_heads };

inline constexpr std::array all_tasks = {Task::selective_copying, Task::induction_heads};

/// As in options, files and tables.
constexpr std::string_view name_of(Task task) {
  return task == Task::selective_copying ? "selective-copying" : "induction-heads";
}

/// Examples of equal length with their answers. Only answers are targets; all other positions are masked.
struct Examples {
  std::vector<Token> inputs, targets;  // (B, L)
  Shape shape;

  TokenBatch batch() const { return {inputs, targets, shape}; }

  /// Makes room for examples of this shape, without answers yet.
  void reset(Shape wanted) {
    shape = wanted;
    inputs.assign(static_cast<std::size_t>(shape.tokens()), 0);
    targets.assign(static_cast<std::size_t>(shape.tokens()), masked_target);
  }
};

/// Selective copying: `items` data tokens at random positions among `length` of noise, then as many markers, each of which
/// asks for the next item. Their distances vary, so that what to keep has to be told from its content.
class SelectiveCopying {
 public:
  static constexpr Token noise = 0, marker = 15;
  static constexpr std::uint64_t symbols = 14;  // the items are 1 … 14

  /// Writes one example. Every choice of positions is equally likely.
  static void fill(Random& random, Index length, Index items, Token* inputs, Token* targets) {
    std::fill_n(inputs, length, noise);
    Index left = items;
    for (Index i = 0; i < length; ++i) {
      if (static_cast<Index>(random.below(static_cast<std::uint64_t>(length - i))) >= left) continue;
      inputs[i] = static_cast<Token>(1 + random.below(symbols));
      targets[length + items - left] = inputs[i];
      --left;
    }
    std::fill_n(inputs + length, items, marker);
  }
};

/// Induction heads: random tokens, one of them the special one. It comes again at the end and asks for the token that
/// followed it the first time.
class InductionHeads {
 public:
  static constexpr Token special = 15;

  static void fill(Random& random, Index length, Token* inputs, Token* targets) {
    std::generate_n(inputs, length, [&] { return static_cast<Token>(random.below(special)); });
    const auto first = static_cast<Index>(random.below(static_cast<std::uint64_t>(length - 2)));
    inputs[first] = inputs[length - 1] = special;
    targets[length - 1] = inputs[first + 1];
  }
};

/// The shape of `count` examples. The length of selective copying does not count the markers at the end.
inline Shape shape_of(Task task, Index length, Index items, Index count) {
  return {count, task == Task::selective_copying ? length + items : length};
}

/// Replaces `examples` by `count` new ones. The length must hold the items of selective copying, and be 3 or more.
inline void generate(Task task, Random& random, Index length, Index items, Index count, Examples& examples) {
  examples.reset(shape_of(task, length, items, count));
  const Index each = examples.shape.length;
  for (Index example = 0; example < count; ++example) {
    Token* const inputs = examples.inputs.data() + example * each;
    Token* const targets = examples.targets.data() + example * each;
    if (task == Task::selective_copying) {
      SelectiveCopying::fill(random, length, items, inputs, targets);
    } else {
      InductionHeads::fill(random, length, inputs, targets);
    }
  }
}

}  // namespace mechanism
