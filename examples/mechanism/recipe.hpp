#pragma once

#include <bit>
#include <cstdint>
#include <string>

#include "options.hpp"
#include "results.hpp"
#include "tasks.hpp"

/// How a task is trained and tested.
namespace mechanism {

struct Recipe {
  Index items = 16;  ///< data tokens of selective copying
  /// A step's examples have a power of 2 from one to the other, drawn with equal chances.
  Index shortest = 32, length = 256;
  Index tokens = 2048;  ///< of a step, about
  Index steps = 0, warmup = 0;
  double learning_rate = 0;            ///< the peak, of Mamba and MoE-Mamba
  double attention_learning_rate = 0;  ///< of the Transformer
  double weight_decay = 0;
  double floor = 0.1;                             ///< of the learning rate, at the end of a cosine
  Index shortest_test = 64, longest_test = 4096;  ///< every power of 2 from one to the other is tested
  Index tests = 512;                              ///< examples of a length

  /// The length of a step's examples.
  Index training_length(Random& random) const {
    const auto ratio = static_cast<std::uint64_t>(length / shortest);
    return shortest << random.below(1 + static_cast<std::uint64_t>(std::countr_zero(ratio)));
  }
};

/// The recipe of a task, or of its small size.
///
/// Induction heads are rarely found at the full length alone, where the one answer may be anywhere: hence short examples among
/// the long ones. Lengths that grow instead find a solution at once, but one that is not kept to longer tests. Weight decay
/// harms it too: once the answers are right, it wears off what no error at the training length corrects.
inline Recipe recipe_of(Task task, const Options& options) {
  const bool copying = task == Task::selective_copying;
  Recipe recipe;
  recipe.steps = copying ? 10000 : 1200;
  recipe.warmup = copying ? 200 : 100;
  recipe.shortest = copying ? 32 : 16;
  recipe.learning_rate = copying ? 6e-3 : 8e-3;
  recipe.attention_learning_rate = 1e-3;
  recipe.weight_decay = copying ? 0.1 : 0;
  if (options.small) {
    recipe.items = 3;
    recipe.shortest = 16;
    recipe.length = recipe.shortest_test = 32;
    recipe.tokens = 1024;
    recipe.steps = copying ? 400 : 250;
    recipe.warmup = 50;
    recipe.longest_test = 128;
  }
  recipe.longest_test = options.longest.value_or(recipe.longest_test);
  return recipe;
}

/// The task, its training and its tests, for the reader of the results.
inline std::string description(Task task, const Recipe& recipe) {
  const std::string what =
      task == Task::selective_copying
          ? "repeat " + std::to_string(recipe.items) + " data tokens that are scattered among noise, in their order"
          : std::string("recall, at the end, the token that followed the special one");
  using support::grouped;
  return std::string(name_of(task)) + ": " + what + ".\n  Trained on lengths of " + grouped(recipe.shortest) + " to " +
         grouped(recipe.length) + ", each power of 2 equally often: " + grouped(recipe.steps) + " steps of " +
         grouped(recipe.tokens) + " tokens.\n  Tested on " + grouped(recipe.tests) + " new examples of each length" +
         (recipe.longest_test > 2048 ? "; the Transformer on fewer at 4,096, and on none beyond." : ".");
}

}  // namespace mechanism
