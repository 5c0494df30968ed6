#include "moe_mamba/generate/sampling.hpp"

#include <limits>
#include <map>
#include <set>
#include <type_traits>

#include "support/catch.hpp"
#include "support/data.hpp"

using namespace moe_mamba;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

std::map<Token, int> counts(Sampler& sampler, const std::vector<double>& logits, int draws) {
  std::map<Token, int> count;
  for (int i = 0; i < draws; ++i) ++count[sampler(logits)];
  return count;
}

/// Pearson's chi-square statistic of the counts, where every token of positive probability, and no other, may occur.
double chi_square(const std::map<Token, int>& count, const std::vector<double>& probability, int draws) {
  double sum = 0;
  for (std::size_t token = 0; token < probability.size(); ++token) {
    const auto found = count.find(Token(token));
    const double seen = found == count.end() ? 0 : found->second, expected = probability[token] * draws;
    if (expected == 0 && seen > 0) return infinity;
    if (expected > 0) sum += (seen - expected) * (seen - expected) / expected;
  }
  return sum;
}

std::vector<double> softmax(const std::vector<double>& logits, double temperature, const std::set<Token>& allowed) {
  std::vector<double> probability(logits.size(), 0);
  double sum = 0;
  for (const Token token : allowed) sum += std::exp(logits[std::size_t(token)] / temperature);
  for (const Token token : allowed)
    probability[std::size_t(token)] = std::exp(logits[std::size_t(token)] / temperature) / sum;
  return probability;
}

std::set<Token> all_tokens(std::size_t count) {
  std::set<Token> tokens;
  for (std::size_t i = 0; i < count; ++i) tokens.insert(Token(i));
  return tokens;
}

/// Tokens by descending logit, ties by ascending index, independent of the sampler's implementation.
std::vector<Token> ranking(const std::vector<double>& logits) {
  std::vector<Token> order;
  std::set<Token> rest = all_tokens(logits.size());
  while (!rest.empty()) {
    Token best = *rest.begin();
    for (const Token token : rest) {
      if (logits[std::size_t(token)] > logits[std::size_t(best)]) best = token;
    }
    order.push_back(best);
    rest.erase(best);
  }
  return order;
}

// With d degrees of freedom the statistic has mean d and variance 2 d. Six standard deviations, plus some for the skew
// at few degrees: about one seed in a million rejects a correct sampler.
double chi_square_bound(double degrees) { return degrees + 6 * std::sqrt(2 * degrees) + 12; }

}  // namespace

static_assert(std::is_convertible_v<Greedy, Sampling> && Sampling(Greedy{}).temperature == 0);
static_assert(Sampling(TopP{0.9f}) == Sampling{.temperature = 1, .top_k = 0, .top_p = 0.9f});
static_assert(Sampling(TopKSampling{5, 0.5f}) == Sampling{.temperature = 0.5f, .top_k = 5, .top_p = 1});
static_assert(Sampling(Temperature{2}) == Sampling{.temperature = 2, .top_k = 0, .top_p = 1});

TEST_CASE("The greedy choice is the largest logit, the first of equal ones, and draws nothing", "[generate]") {
  Sampler sampler(Greedy{}, Seed{1}, 5);
  CHECK(sampler(std::vector<double>{1, 3, 2, 3, -1}) == 1);
  CHECK(sampler(std::vector<float>{0, 0, 0, 0, 0}) == 0);
  CHECK(sampler(std::vector<double>{-infinity, -infinity, -1e300, -infinity, -infinity}) == 2);
  CHECK(sampler.random() == Sampler(Greedy{}, Seed{1}, 5).random());
  CHECK(Sampler(Greedy{}, Seed{}, 1)(std::vector<float>{-7}) == 0);
}

TEST_CASE("Tokens come in proportion to softmax of logits over temperature", "[generate]") {
  const int draws = 40000;
  for (const Index vocabulary : {1, 2, 7, 64}) {
    for (const float temperature : {0.5f, 1.0f, 3.0f}) {
      INFO(vocabulary << " tokens at " << temperature);
      const auto logits = test::uniform<double>(vocabulary, std::uint64_t(vocabulary), -2, 2);
      Sampler sampler(Temperature{temperature}, Seed{7}, vocabulary);
      const auto probability = softmax(logits, double(temperature), all_tokens(logits.size()));
      CHECK(chi_square(counts(sampler, logits, draws), probability, draws) < chi_square_bound(double(vocabulary - 1)));
      CHECK(sampler.random().position() == std::uint64_t(draws));
    }
  }
}

TEST_CASE("The k most probable tokens are drawn and no others", "[generate]") {
  const int draws = 20000;
  auto logits = test::uniform<double>(12, 3, -1, 1);
  logits[2] = logits[9] = logits[5];  // ties across the edge go to the lowest index
  const auto order = ranking(logits);
  for (Index k = 0; k <= 14; ++k) {
    INFO(k);
    Sampler sampler(TopKSampling{k, 1.5f}, Seed{std::uint64_t(k)}, 12);
    const Index kept = k == 0 || k > 12 ? 12 : k;
    const std::set<Token> allowed(order.begin(), order.begin() + kept);
    const auto count = counts(sampler, logits, draws);
    std::set<Token> seen;
    for (const auto& [token, times] : count) seen.insert(token);
    CHECK(seen == allowed);
    CHECK(chi_square(count, softmax(logits, 1.5, allowed), draws) < chi_square_bound(double(kept - 1)));
  }
}

TEST_CASE("The fewest tokens that reach the probability p are drawn and no others", "[generate]") {
  const int draws = 20000;
  // Probabilities 0.4, 0.3, 0.2, 0.1 and 0, unordered; each p is between two cumulative sums.
  const std::vector<double> logits = {std::log(0.2), std::log(0.4), -infinity, std::log(0.1), std::log(0.3)};
  const std::pair<float, std::set<Token>> cases[] = {{1e-6f, {1}},          {0.39f, {1}},        {0.41f, {1, 4}},
                                                     {0.69f, {1, 4}},       {0.71f, {1, 4, 0}},  {0.89f, {1, 4, 0}},
                                                     {0.91f, {1, 4, 0, 3}}, {1.0f, {1, 4, 0, 3}}};
  for (const auto& [p, allowed] : cases) {
    INFO(p);
    Sampler sampler(TopP{p}, Seed{2}, 5);
    const auto count = counts(sampler, logits, draws);
    std::set<Token> seen;
    for (const auto& [token, times] : count) seen.insert(token);
    CHECK(seen == allowed);
    CHECK(chi_square(count, softmax(logits, 1, allowed), draws) < chi_square_bound(double(allowed.size() - 1)));
  }

  // Equal probabilities: the lowest indices are kept. p is half a token above a sum, out of reach of rounding.
  Sampler sampler(TopP{2.5f / 8}, Seed{2}, 8);
  std::set<Token> seen;
  for (int i = 0; i < 200; ++i) seen.insert(sampler(std::vector<float>(8, 1.25f)));
  CHECK(seen == std::set<Token>{0, 1, 2});
}

TEST_CASE("The nucleus of a long-tailed distribution equals that of a full sort", "[generate]") {
  for (const float p : {0.05f, 0.5f, 0.9f, 0.99f}) {
    const auto logits = test::uniform<double>(500, std::uint64_t(p * 1000), -9, 0);
    const auto order = ranking(logits);
    const auto probability = softmax(logits, 1, all_tokens(500));
    std::set<Token> allowed;
    double sum = 0;
    for (std::size_t i = 0; sum < double(p); ++i) {
      allowed.insert(order[i]);
      sum += probability[std::size_t(order[i])];
    }
    Sampler sampler(TopP{p}, Seed{9}, 500);
    const int draws = 40000;
    const auto count = counts(sampler, logits, draws);
    CHECK(chi_square(count, softmax(logits, 1, allowed), draws) < chi_square_bound(double(allowed.size() - 1)));
    // With p = 0.9 the rarest of them is expected 70 times.
    if (p <= 0.9f) CHECK(count.size() == allowed.size());
  }
}

TEST_CASE("Top-p takes its probabilities among the tokens that top-k kept", "[generate]") {
  const std::vector<double> logits = {std::log(0.4), std::log(0.3), std::log(0.2), std::log(0.1)};
  // Of the first two, 0.4 / 0.7 = 0.571 and 0.429: p = 0.55 keeps one, though 0.4 of all tokens would not reach it.
  for (const auto& [p, kept] : {std::pair{0.55f, 1u}, std::pair{0.6f, 2u}}) {
    Sampler sampler(Sampling{.temperature = 1, .top_k = 2, .top_p = p}, Seed{4}, 4);
    CHECK(counts(sampler, logits, 500).size() == kept);
  }
}

TEST_CASE("The same seed draws the same tokens, from copies and restored states too", "[generate]") {
  const auto logits = test::uniform<float>(300, 8);
  const std::vector<double> wide = test::converted<double>(logits);
  for (const Sampling sampling : {Sampling{}, Sampling(TopP{0.8f}), Sampling(TopKSampling{20}),
                                  Sampling{.temperature = 0.7f, .top_k = 100, .top_p = 0.5f}}) {
    Sampler a(sampling, Seed{5}, 300), b(sampling, Seed{5}, 300), other_seed(sampling, Seed{6}, 300),
        other_stream(sampling, Seed{5}, 300, 1);
    std::vector<Token> from_a, from_b, from_other_seed, from_other_stream;
    for (int i = 0; i < 50; ++i) {
      from_a.push_back(a(logits));
      from_b.push_back(b(wide));
      from_other_seed.push_back(other_seed(logits));
      from_other_stream.push_back(other_stream(logits));
    }
    CHECK(from_a == from_b);
    CHECK(from_a != from_other_seed);
    CHECK(from_a != from_other_stream);

    const Random state = a.random();
    Sampler copy = a;
    std::vector<Token> onward, from_copy, restored;
    for (int i = 0; i < 20; ++i) onward.push_back(a(logits));
    for (int i = 0; i < 20; ++i) from_copy.push_back(copy(logits));
    b.restore(state);
    for (int i = 0; i < 20; ++i) restored.push_back(b(logits));
    CHECK(onward == from_copy);
    CHECK(onward == restored);
  }
}

TEST_CASE("Extreme logits and temperatures give the only possible tokens", "[generate]") {
  const std::vector<double> huge = {-1e300, 1e300, 0};
  const std::vector<float> wide = {-3e38f, 3e38f, 0};
  for (const float temperature : {std::numeric_limits<float>::denorm_min(), 1e-30f, 1.0f, 1e30f}) {
    for (const float p : {1.0f, 0.5f}) {
      Sampler sampler(Sampling{.temperature = temperature, .top_k = 0, .top_p = p}, Seed{1}, 3);
      for (int i = 0; i < 20; ++i) {
        CHECK(sampler(huge) == 1);
        if (temperature <= 1) CHECK(sampler(wide) == 1);
        CHECK(sampler(std::vector<double>{-infinity, -infinity, 3}) == 2);
      }
    }
  }
}

TEST_CASE("Invalid logits are reported and leave the sampler unchanged", "[generate]") {
  for (const Sampling sampling : {Sampling(Greedy{}), Sampling{}, Sampling(TopP{0.5f})}) {
    Sampler sampler(sampling, Seed{1}, 3);
    const Random before = sampler.random();
    using Catch::Matchers::StartsWith;
    CHECK_THROWS_WITH(sampler(std::vector<double>{1, not_a_number, 0}), StartsWith("logit of token 1 is nan"));
    CHECK_THROWS_WITH(sampler(std::vector<float>{1, 2, float(infinity)}), StartsWith("logit of token 2 is inf"));
    CHECK_THROWS_WITH(sampler(std::vector<double>(3, -infinity)), StartsWith("logits are all minus infinity"));
    CHECK_THROWS_AS(sampler(std::vector<double>{1, not_a_number, 2}), std::runtime_error);
    CHECK_THROWS_WITH(sampler(std::vector<float>{1, 2}), StartsWith("number of logits is 2; allowed: 3"));
    CHECK_THROWS_AS(sampler(std::vector<float>{1, 2, 3, 4}), std::invalid_argument);
    CHECK_THROWS_AS(sampler(std::vector<float>{}), std::invalid_argument);
    CHECK(sampler.random() == before);
  }
}

TEST_CASE("Options out of range are refused by name", "[generate]") {
  using Catch::Matchers::StartsWith;
  const auto sampler = [](Sampling sampling, Index vocabulary = 4) { Sampler made(sampling, Seed{}, vocabulary); };
  for (const float value : {-1.0f, -1e-30f, float(infinity), float(not_a_number)}) {
    CHECK_THROWS_WITH(sampler(Temperature{value}), StartsWith("temperature is "));
  }
  CHECK_THROWS_WITH(sampler(TopKSampling{-1}), StartsWith("top_k is -1"));
  for (const float value : {0.0f, -0.5f, 1.0001f, float(infinity), float(not_a_number)}) {
    CHECK_THROWS_WITH(sampler(TopP{value}), StartsWith("top_p is "));
  }
  CHECK_THROWS_WITH(sampler(Greedy{}, 0), StartsWith("vocabulary is 0"));
  CHECK_THROWS_AS(sampler(Greedy{}, -3), std::invalid_argument);
}
