// The reference of the operation that draws tokens agrees with the Sampler, token for token.
#include <algorithm>
#include <limits>
#include <string>

#include "moe_mamba/generate/sampling.hpp"
#include "moe_mamba/reference.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

using namespace moe_mamba;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// The operation's reference on rows of logits, with its own memory.
template <class C>
struct Operation {
  Index rows, vocabulary;
  std::vector<std::uint64_t> positions;
  std::vector<Token> tokens;
  std::vector<std::uint32_t> status;
  HostMemory scratch;

  Operation(Index rows_, Index vocabulary_)
      : rows(rows_),
        vocabulary(vocabulary_),
        positions(std::size_t(rows)),
        tokens(std::size_t(rows), -7),
        status(std::size_t(rows)),
        scratch(reference::sample_scratch<C>(reference::Device{}, rows, vocabulary)) {}

  void operator()(Sampling sampling, const std::vector<C>& logits, Seed seed, std::uint64_t stream) {
    reference::Device device;
    sample(device, SampleTokens<C>{.sampling = sampling,
                                   .logits = matrix(logits.data(), rows, vocabulary),
                                   .seed = seed,
                                   .stream = stream,
                                   .positions = positions.data(),
                                   .tokens = tokens.data(),
                                   .status = status.data(),
                                   .scratch = Arena(scratch.data())});
  }
};

/// All options of sampling: alone and combined, moderate and extreme.
std::vector<Sampling> samplings(Index vocabulary) {
  std::vector<Sampling> all;
  for (const float temperature : {0.0f, std::numeric_limits<float>::denorm_min(), 0.7f, 2.5f, 1e30f}) {
    for (const Index k : {Index{0}, Index{1}, Index{2}, Index{17}, vocabulary - 1, vocabulary, vocabulary + 1}) {
      if (k < 0) continue;
      for (const float p : {1e-6f, 0.5f, 0.9f, 1.0f}) {
        all.push_back({.temperature = temperature, .top_k = k, .top_p = p});
      }
    }
  }
  return all;
}

/// Logits of many kinds: of large and small range, with ties, with zeros of both signs, with excluded tokens.
template <class C>
std::vector<C> draw_logits(Index count, std::uint64_t kind) {
  auto logits = test::uniform<C>(count, 100 + kind, -4, 4);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (kind == 1) logits[i] = std::round(logits[i]);                   // nine values, -0 among them
    if (kind == 2) logits[i] = logits[i] * C(20);                       // a few tokens have all the probability
    if (kind == 3 && i % 3 != 1) logits[i] = C(-infinity);              // two thirds excluded
    if (kind == 4) logits[i] = C(1.25);                                 // no difference at all
    if (kind == 5) logits[i] = logits[i] * C(1e30) + C(i % 7);          // differences lost in rounding
    if (kind == 6) logits[i] = C(i % 2 == 0 ? 3e38 : -3e38);            // differences beyond float
    if (kind == 7 && i != logits.size() / 2) logits[i] = C(-infinity);  // a single token remains
  }
  return logits;
}

}  // namespace

TEMPLATE_TEST_CASE("the operation draws what samplers of its streams draw", "[generate][sampling]", float, double) {
  using C = TestType;
  const Seed seed{11};
  const std::uint64_t stream = 5;
  for (const Index vocabulary : {1, 2, 3, 31, 130}) {
    for (std::uint64_t kind = 0; kind < 8; ++kind) {
      const Index rows = 3;
      const auto logits = draw_logits<C>(rows * vocabulary, kind);
      for (const Sampling& sampling : samplings(vocabulary)) {
        Operation<C> operation(rows, vocabulary);
        std::vector<Sampler> samplers;
        for (Index row = 0; row < rows; ++row)
          samplers.emplace_back(sampling, seed, vocabulary, stream + std::uint64_t(row));
        std::vector<Token> expected, actual;
        std::vector<std::uint64_t> positions;
        for (int draw = 0; draw < 3; ++draw) {
          operation(sampling, logits, seed, stream);
          actual.insert(actual.end(), operation.tokens.begin(), operation.tokens.end());
          for (Index row = 0; row < rows; ++row) {
            const std::span<const C> own(logits.data() + row * vocabulary, std::size_t(vocabulary));
            // With kind 7 only one row has a token.
            const bool none = std::all_of(own.begin(), own.end(), [](C logit) { return logit == C(-infinity); });
            expected.push_back(none ? -1 : samplers[std::size_t(row)](own));
          }
        }
        for (const Sampler& sampler : samplers) positions.push_back(sampler.random().position());
        INFO(vocabulary << " tokens, kind " << kind << ", temperature " << sampling.temperature << ", k "
                        << sampling.top_k << ", p " << sampling.top_p);
        if (actual != expected || operation.positions != positions) {
          CHECK(actual == expected);
          CHECK(operation.positions == positions);
        }
      }
    }
  }
  SUCCEED();
}

TEST_CASE("the operation and a sampler agree over many draws from a large vocabulary", "[generate][sampling]") {
  const Index vocabulary = 5003;
  const auto logits = test::uniform<float>(vocabulary, 1, -9, 0);
  for (const Sampling sampling : {Sampling{}, Sampling{0.8f, 0, 0.95f}, Sampling{1, 200, 1}, Sampling{2, 900, 0.6f}}) {
    Operation<float> operation(1, vocabulary);
    Sampler sampler(sampling, Seed{2}, vocabulary, 9);
    int differences = 0;
    for (int draw = 0; draw < 100; ++draw) {
      operation(sampling, logits, Seed{2}, 9);
      differences += operation.tokens[0] != sampler(logits) ? 1 : 0;
    }
    CHECK(differences == 0);
  }
}

TEST_CASE("ties at the edge of what is kept go to the lowest index, also where rounding would make more ties",
          "[generate][sampling]") {
  // All but the first are equal to it at this temperature once the largest is subtracted in double; they still rank by
  // their logits.
  std::vector<double> logits = {1e20, 1, 3, 2, 3};
  Sampler sampler(Sampling{.temperature = 1e30f, .top_k = 3, .top_p = 1}, Seed{1}, 5);
  std::vector<int> count(5);
  for (int draw = 0; draw < 300; ++draw) ++count[std::size_t(sampler(logits))];
  CHECK((count[0] > 0 && count[1] == 0 && count[2] > 0 && count[3] == 0 && count[4] > 0));
}

TEST_CASE("a row without a valid token reports why and keeps its position, and the others draw",
          "[generate][sampling]") {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  const std::vector<float> logits = {1, 2, 3, nan, 2, 3, 1, inf, 3, -inf, -inf, -inf, -inf, nan, -inf, -inf, 5, -inf};
  for (const Sampling sampling : {Sampling(Greedy{}), Sampling{}, Sampling{1, 2, 0.5f}}) {
    Operation<float> operation(6, 3);
    operation.positions.assign(6, 40);
    operation.status[5] = 4;  // the caller's flags there are kept
    operation(sampling, logits, Seed{1}, 0);
    CHECK(operation.status ==
          std::vector<std::uint32_t>{0, logit_not_finite, logit_not_finite, all_tokens_excluded, logit_not_finite, 4});
    for (const std::size_t row : {1, 2, 3, 4}) CHECK(operation.tokens[row] == -1);
    CHECK((operation.tokens[0] >= 0 && operation.tokens[0] < 3));
    CHECK(operation.tokens[5] == 1);
    const std::uint64_t next = sampling.temperature == 0 ? 40 : 41;
    CHECK(operation.positions == std::vector<std::uint64_t>{next, 40, 40, 40, 40, next});
    operation(sampling, std::vector<float>(18, 1.0f), Seed{1}, 0);
    CHECK(operation.status[3] == all_tokens_excluded);  // not forgotten by a good step
  }
}
