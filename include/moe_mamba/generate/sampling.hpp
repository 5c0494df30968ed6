#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/random.hpp"
#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/ops/sampling.hpp"

/// Chooses the next token from a model's logits on the host; the methods are documented in ops/sampling.hpp.
namespace moe_mamba::inline v0_2 {

/// Draws tokens. It is a value: a copy draws the same tokens as the original. A draw uses one random number, a greedy one
/// none, so that seed and position are the whole state. Nothing is allocated after construction.
///
/// It gives the same tokens as the operation of ops/sampling.hpp for one row, with exceptions instead of a status; CPU
/// devices have no such operation.
class Sampler {
 public:
  /// For logits of `vocabulary` tokens. Samplers of one seed and different `stream` (such as one per sequence) draw
  /// independently. Throws std::invalid_argument for options out of range.
  Sampler(Sampling sampling, Seed seed, Index vocabulary, std::uint64_t stream = 0)
      : sampling_(sampling), random_(sampling_random(seed, stream)) {
    check(sampling);
    require(vocabulary > 0 && vocabulary <= most_sampled_tokens, "vocabulary", vocabulary, "1 to 2^28");
    candidates_.resize(static_cast<std::size_t>(vocabulary));
  }

  /// The next token, in 0 … vocabulary - 1. A logit of minus infinity excludes its token.
  ///
  /// Throws, leaving the sampler unchanged, std::invalid_argument if there are not `vocabulary` logits, and
  /// std::runtime_error if one is NaN or plus infinity, or all are minus infinity, so that a broken model is noticed.
  Token operator()(std::span<const float> logits) { return draw(logits); }
  Token operator()(std::span<const double> logits) { return draw(logits); }

  const Sampling& sampling() const { return sampling_; }
  Index vocabulary() const { return static_cast<Index>(candidates_.size()); }

  /// The state, which can be saved and restored.
  const Random& random() const { return random_; }
  void restore(const Random& random) { random_ = random; }

 private:
  struct Candidate {
    double logit;
    double weight;
    Token token;
  };
  static bool ranks_before(const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  }

  template <class T>
  Token draw(std::span<const T> logits);
  template <class T>
  std::size_t most_probable(std::span<const T> logits) const;
  template <class T>
  std::size_t gather(std::span<const T> logits, double largest, const Candidate& last);
  Candidate last_of_nucleus(std::size_t count);
  double total_weight(std::size_t count) const;

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
      detail::raise<std::runtime_error>(
          error_text(("logit of token " + std::to_string(i)).c_str(), logits[i], "finite numbers and minus infinity"));
    }
    if (logits[i] > logits[best]) best = i;
  }
  if (logits[best] == -T(INFINITY)) {
    detail::raise<std::runtime_error>("logits are all minus infinity; allowed: at least one finite number");
  }
  return best;
}

template <class T>
Token Sampler::draw(std::span<const T> logits) {
  const std::size_t best = most_probable(logits);
  if (sampling_.temperature == 0) return static_cast<Token>(best);

  // The tokens that are kept are those up to this one in the order of rank.
  Candidate last{-static_cast<double>(INFINITY), 0, std::numeric_limits<Token>::max()};
  if (sampling_.top_k > 0 && sampling_.top_k < vocabulary()) {
    for (std::size_t i = 0; i < logits.size(); ++i) {
      candidates_[i] = {static_cast<double>(logits[i]), 0, static_cast<Token>(i)};
    }
    const auto kth = candidates_.begin() + (sampling_.top_k - 1);
    std::nth_element(candidates_.begin(), kth, candidates_.end(), ranks_before);
    last = *kth;
  }
  const auto largest = static_cast<double>(logits[best]);
  std::size_t count = gather(logits, largest, last);
  if (sampling_.top_p < 1) count = gather(logits, largest, last_of_nucleus(count));

  const double threshold = random_.uniform() * total_weight(count);
  Token token = static_cast<Token>(best);
  double sum = 0;
  for (std::size_t i = 0; i < count && !(sum > threshold); ++i) {
    if (candidates_[i].weight > 0) token = candidates_[i].token;
    sum += candidates_[i].weight;
  }
  return token;
}

/// Stores the tokens up to `last` in the order of rank at the front of the candidates, sorted by index, with their weights.
/// Returns their number.
template <class T>
std::size_t Sampler::gather(std::span<const T> logits, double largest, const Candidate& last) {
  const Candidate end = last;  // a copy, since `last` may be overwritten
  std::size_t count = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const Candidate candidate{static_cast<double>(logits[i]), 0, static_cast<Token>(i)};
    if (ranks_before(end, candidate)) continue;
    candidates_[count] = candidate;
    candidates_[count++].weight = sampling_weight(candidate.logit, largest, sampling_.temperature);
  }
  return count;
}

inline double Sampler::total_weight(std::size_t count) const {
  double total = 0;
  for (std::size_t i = 0; i < count; ++i) total += candidates_[i].weight;
  return total;
}

/// The last token, in the order of rank, of the nucleus of the first `count` candidates, which it reorders.
inline Sampler::Candidate Sampler::last_of_nucleus(std::size_t count) {
  const auto begin = candidates_.begin(), end = begin + static_cast<Index>(count);
  const double total = total_weight(count), wanted = static_cast<double>(sampling_.top_p) * total;
  // Tokens below (1 - p) / n of the total sum to less than 1 - p, so the nucleus is among the others, and only these few are
  // sorted. The bound is halved, so that rounding cannot exclude a token of the nucleus.
  const double least = 0.5 * (total - wanted) / static_cast<double>(count);
  const auto middle = std::partition(begin, end, [least](const Candidate& c) { return c.weight >= least; });
  std::sort(begin, middle, ranks_before);
  double sum = begin->weight;
  auto last = begin;
  while (last + 1 != middle && sum < wanted) sum += (++last)->weight;
  return *last;
}

}  // namespace moe_mamba::inline v0_2
