#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/sampling.hpp"
#include "moe_mamba/reference/device.hpp"

/// The reference of ops/sampling.hpp.
namespace moe_mamba::inline v0_2::reference {

template <class C = void>
std::size_t sample_scratch(const Device&, Index, Index vocabulary) {
  Arena counting;
  counting.take<Index>(vocabulary);
  counting.take<double>(vocabulary);
  return counting.used();
}

template <class C>
void sample(Device&, const SampleTokens<C>& sample) {
  const Index vocabulary = sample.logits.columns;
  const Sampling& sampling = sample.sampling;
  Arena scratch = sample.scratch;
  Index* const ranking = scratch.take<Index>(vocabulary);
  double* const weights = scratch.take<double>(vocabulary);
  for (Index row = 0; row < sample.logits.rows; ++row) {
    const C* logits = sample.logits.row(row);
    std::uint32_t status = all_tokens_excluded;
    for (Index v = 0; v < vocabulary; ++v) {
      if (!(double(logits[v]) < HUGE_VAL)) status |= logit_not_finite;
      if (double(logits[v]) > -HUGE_VAL) status &= ~all_tokens_excluded;
      ranking[v] = v;
      weights[v] = 0;
    }
    if ((status & logit_not_finite) != 0) status = logit_not_finite;
    sample.tokens[row] = -1;
    sample.status[row] |= status;
    if (status != 0) continue;

    std::sort(ranking, ranking + vocabulary,
              [&](Index a, Index b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
    sample.tokens[row] = static_cast<Token>(ranking[0]);
    if (sampling.temperature == 0) continue;

    Index kept = sampling.top_k > 0 ? std::min(sampling.top_k, vocabulary) : vocabulary;
    for (Index rank = 0; rank < kept; ++rank) {
      const Index v = ranking[rank];
      weights[v] = sampling_weight(double(logits[v]), double(logits[ranking[0]]), sampling.temperature);
    }
    const auto total = [&] {
      double sum = 0;
      for (Index v = 0; v < vocabulary; ++v) sum += weights[v];
      return sum;
    };
    if (sampling.top_p < 1) {
      const double wanted = static_cast<double>(sampling.top_p) * total();
      double sum = 0;
      Index nucleus = 0;
      while (nucleus < kept && (nucleus == 0 || sum < wanted)) sum += weights[ranking[nucleus++]];
      for (; kept > nucleus; --kept) weights[ranking[kept - 1]] = 0;
    }
    Random random = sampling_random(sample.seed, sample.stream + std::uint64_t(row), sample.positions[row]);
    const double threshold = random.uniform() * total();
    sample.positions[row] = random.position();
    double sum = 0;
    for (Index v = 0; v < vocabulary && !(sum > threshold); ++v) {
      if (weights[v] > 0) sample.tokens[row] = static_cast<Token>(v);
      sum += weights[v];
    }
  }
}

}  // namespace moe_mamba::inline v0_2::reference
