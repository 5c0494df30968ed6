#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/random.hpp"
#include "moe_mamba/core/scalar.hpp"

/// How the next token is chosen from a model's logits.
namespace moe_mamba {

/// Everything that shapes the choice, and what the shorter forms below convert to. In this order: logits are divided by
/// the temperature, the `top_k` most probable tokens are kept, then of these the fewest whose probabilities, among
/// those kept, sum to `top_p` or more; one of them is drawn in proportion to its probability. Tokens of equal logits
/// rank by their index, lowest first.
struct Sampling {
  float temperature = 1;  // >= 0; 0 takes the most probable token and draws nothing
  Index top_k = 0;        // >= 0; 0, or more than there are, keeps all
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
  Index k = 1;
  float temperature = 1;

  constexpr operator Sampling() const { return {.temperature = temperature, .top_k = k, .top_p = 1}; }
};

/// The most probable tokens that together reach the probability p, the nucleus (Holtzman et al. 2020).
struct TopP {
  float p = 1;
  float temperature = 1;

  constexpr operator Sampling() const { return {.temperature = temperature, .top_k = 0, .top_p = p}; }
};

/// Throws std::invalid_argument naming the option that is out of range.
inline void check(const Sampling& sampling) {
  require(std::isfinite(sampling.temperature) && sampling.temperature >= 0, "temperature", sampling.temperature,
          "a finite number >= 0");
  require(sampling.top_k >= 0, "top_k", sampling.top_k, "an integer >= 0 (0: all tokens)");
  require(sampling.top_p > 0 && sampling.top_p <= 1, "top_p", sampling.top_p, "0 < top_p <= 1");
}

/// Draws tokens. A value: a copy draws what the original would have drawn. Each draw takes one random word, a greedy
/// one none, so seed and position say all of its state. Nothing is allocated after construction.
class Sampler {
 public:
  /// For logits of `vocabulary` tokens. Samplers of one seed and different `stream` (one a sequence, say) draw
  /// independently. Throws std::invalid_argument for options out of range.
  Sampler(Sampling sampling, Seed seed, Index vocabulary, std::uint64_t stream = 0)
      : sampling_(sampling), random_(seed, (std::uint64_t{0x73616d70} << 32) + stream) {
    check(sampling);
    require(vocabulary > 0 && vocabulary <= Index{1} << 28, "vocabulary", vocabulary, "1 to 2^28");
    candidates_.resize(static_cast<std::size_t>(vocabulary));
  }

  /// The next token, in 0 … vocabulary - 1. A logit of minus infinity excludes its token.
  ///
  /// Throws, with the sampler as it was, std::invalid_argument if there are not `vocabulary` logits, and
  /// std::runtime_error if one is NaN or plus infinity, or all are minus infinity: a broken model is never hidden.
  Token operator()(std::span<const float> logits) { return draw(logits); }
  Token operator()(std::span<const double> logits) { return draw(logits); }

  const Sampling& sampling() const { return sampling_; }
  Index vocabulary() const { return static_cast<Index>(candidates_.size()); }

  /// The state, to be kept and restored.
  const Random& random() const { return random_; }
  void restore(const Random& random) { random_ = random; }

 private:
  struct Candidate {
    double logit;   // divided by the temperature, less the largest
    double weight;  // its exponential: the probability up to a factor
    Token token;
  };
  static bool ranks_before(const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  }

  template <class T>
  Token draw(std::span<const T> logits);
  template <class T>
  std::size_t most_probable(std::span<const T> logits) const;
  std::size_t keep_top_p(std::size_t count);

  Sampling sampling_;
  Random random_;
  std::vector<Candidate> candidates_;
};

/// The index of the largest logit, after checking them all.
template <class T>
std::size_t Sampler::most_probable(std::span<const T> logits) const {
  require(logits.size() == candidates_.size(), "number of logits", logits.size(),
          [&] { return std::to_string(candidates_.size()) + ", the vocabulary"; });
  std::size_t best = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i]) || logits[i] == T(INFINITY)) {
      throw std::runtime_error(
          error_text(("logit of token " + std::to_string(i)).c_str(), logits[i], "finite numbers and minus infinity"));
    }
    if (logits[i] > logits[best]) best = i;
  }
  if (logits[best] == -T(INFINITY)) {
    throw std::runtime_error("logits are all minus infinity; allowed: at least one finite number");
  }
  return best;
}

template <class T>
Token Sampler::draw(std::span<const T> logits) {
  const std::size_t best = most_probable(logits);
  if (sampling_.temperature == 0) return static_cast<Token>(best);

  const double largest = static_cast<double>(logits[best]), temperature = static_cast<double>(sampling_.temperature);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    candidates_[i] = {(static_cast<double>(logits[i]) - largest) / temperature, 0, static_cast<Token>(i)};
  }
  std::size_t count = candidates_.size();
  if (sampling_.top_k > 0 && static_cast<std::size_t>(sampling_.top_k) < count) {
    count = static_cast<std::size_t>(sampling_.top_k);
    std::nth_element(candidates_.begin(), candidates_.begin() + (sampling_.top_k - 1), candidates_.end(), ranks_before);
  }
  for (std::size_t i = 0; i < count; ++i) candidates_[i].weight = std::exp(candidates_[i].logit);
  if (sampling_.top_p < 1) count = keep_top_p(count);

  double total = 0;
  for (std::size_t i = 0; i < count; ++i) total += candidates_[i].weight;
  double left = random_.uniform() * total;
  Token token = static_cast<Token>(best);
  for (std::size_t i = 0; i < count; ++i) {
    if (candidates_[i].weight == 0) continue;
    token = candidates_[i].token;  // stays the last one with weight if rounding leaves a rest
    left -= candidates_[i].weight;
    if (left < 0) break;
  }
  return token;
}

/// Moves the nucleus of the first `count` candidates to the front, most probable first, and returns its size.
inline std::size_t Sampler::keep_top_p(std::size_t count) {
  const auto begin = candidates_.begin(), end = begin + static_cast<Index>(count);
  double total = 0;
  for (auto candidate = begin; candidate != end; ++candidate) total += candidate->weight;
  const double wanted = static_cast<double>(sampling_.top_p) * total;
  // Tokens below (1 - p) / n of the total sum to less than 1 - p, so the nucleus lies in the others: few to be sorted.
  // Halved, so that rounding cannot cost a token.
  const double least = 0.5 * (total - wanted) / static_cast<double>(count);
  const auto middle = std::partition(begin, end, [least](const Candidate& c) { return c.weight >= least; });
  std::sort(begin, middle, ranks_before);
  double sum = 0;
  std::size_t kept = 0;
  for (auto candidate = begin; candidate != middle && (kept == 0 || sum < wanted); ++candidate, ++kept) {
    sum += candidate->weight;
  }
  return kept;
}

}  // namespace moe_mamba
