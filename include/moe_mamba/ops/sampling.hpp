#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "moe_mamba/core/annotation.hpp"
#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/random.hpp"
#include "moe_mamba/core/view.hpp"

/// The choice of the next token of each sequence from a model's logits.
///
///   sample(device, SampleTokens<C>{…})               draws a token for each row of logits; advances the positions
///   sample_scratch<C>(device, rows, vocabulary)      the bytes of scratch that it needs for this many rows;
///                                                    without <C>, enough for any type
///
/// Draws one of the tokens that `Sampling` keeps: the first, in the order of indices, at which the running sum of the weights
/// exp((logit - largest) / temperature) exceeds u times their total, with u uniform in [0, 1). Weights and sums are in double.
/// On a CPU, the class Sampler does the same and reports errors by exceptions.
namespace moe_mamba::inline v0_2 {

/// All options of the choice, which the shorter forms below convert to. In this order: logits are divided by
/// the temperature, the `top_k` most probable tokens are kept, then of these the fewest whose probabilities, among
/// those kept, sum to `top_p` or more; one of them is drawn in proportion to its probability. Tokens of equal logits
/// rank by their index, lowest first.
struct Sampling {
  float temperature = 1;  // >= 0; 0 takes the most probable token without drawing
  Index top_k = 0;        // >= 0; 0 keeps all tokens
  float top_p = 1;        // in (0, 1]; at least one token is kept

  friend constexpr bool operator==(const Sampling&, const Sampling&) = default;
};

/// The most probable token, always.
struct Greedy {
  constexpr operator Sampling() const { return {.temperature = 0, .top_k = 0, .top_p = 1}; }
};

/// All tokens, by softmax(logits / value).
struct Temperature {
  float value = 1;

  constexpr operator Sampling() const { return {.temperature = value, .top_k = 0, .top_p = 1}; }
};

/// The k most probable tokens (Fan et al. 2018).
struct TopKSampling {
  Index k = 1;  // >= 0; 0 keeps all, as top_k does
  float temperature = 1;

  constexpr operator Sampling() const { return {.temperature = temperature, .top_k = k, .top_p = 1}; }
};

/// The nucleus: the fewest most probable tokens whose probabilities sum to p or more (Holtzman et al. 2020).
struct TopP {
  float p = 1;
  float temperature = 1;

  constexpr operator Sampling() const { return {.temperature = temperature, .top_k = 0, .top_p = p}; }
};

/// Throws std::invalid_argument naming the option that is out of range.
inline void check(const Sampling& sampling) {
  require(detail::in_range(sampling.temperature, 0, std::numeric_limits<float>::max()), "temperature",
          sampling.temperature, "a finite number >= 0");
  require(sampling.top_k >= 0, "top_k", sampling.top_k, "an integer >= 0 (0: all tokens)");
  require(detail::in_range(sampling.top_p, 0, 1) && sampling.top_p > 0, "top_p", sampling.top_p, "0 < top_p <= 1");
}

/// The largest vocabulary that tokens are drawn from.
inline constexpr Index most_sampled_tokens = Index{1} << 28;

/// The reasons why a row has no token; flags of a status.
inline constexpr std::uint32_t logit_not_finite = 1;     // a logit is NaN or plus infinity
inline constexpr std::uint32_t all_tokens_excluded = 2;  // all logits are minus infinity

template <class C>
struct SampleTokens {
  Sampling sampling;           // within its ranges, as check() says
  MatrixView<const C> logits;  // (B, V), V from 1 to most_sampled_tokens; minus infinity excludes a token
  Seed seed;
  std::uint64_t stream;      // of row 0; row b draws from stream + b, as a Sampler of that stream would
  std::uint64_t* positions;  // (B): random numbers used so far; incremented if one is used
  Token* tokens;             // (B), overwritten: -1 if there is none
  std::uint32_t* status;     // (B): flags are OR-ed in and never cleared, so that one check after many steps suffices
  Arena scratch;             // sample_scratch(…) bytes
};

/// The random numbers of a stream of draws.
MOE_MAMBA_HOST_DEVICE constexpr Random sampling_random(Seed seed, std::uint64_t stream, std::uint64_t position = 0) {
  return Random(seed, (std::uint64_t{0x73616d70} << 32) + stream, position);
}

/// A token's probability up to a factor: 1 for the largest logit.
MOE_MAMBA_HOST_DEVICE inline double sampling_weight(double logit, double largest, float temperature) {
  using std::exp;
  return exp((logit - largest) / static_cast<double>(temperature));
}

}  // namespace moe_mamba::inline v0_2
