// Likelihoods of texts, in any chunks, windows and strides, against the logits of single steps.
#include "moe_mamba/generate/scorer.hpp"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "model/passes.hpp"
#include "moe_mamba/generate/decoder.hpp"
#include "support/allocations.hpp"
#include "support/backend.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;

namespace {

using Net = test::WritingNet;

std::vector<Token> some_tokens(Index count, std::uint64_t seed = 3) {
  Random random(Seed{seed});
  std::vector<Token> tokens(static_cast<std::size_t>(count));
  for (auto& token : tokens) token = static_cast<Token>(random.below(19));
  return tokens;
}

/// The log-probability of `token` given logits, and whether it is the most probable.
template <class C>
Score of_step(std::span<const C> logits, Token token) {
  double sum = 0;
  for (const C logit : logits) sum += std::exp(static_cast<double>(logit));
  const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
  return {static_cast<double>(logits[static_cast<std::size_t>(token)]) - std::log(sum), 1, best == token};
}

/// Token by token.
template <class S>
Score naive(const test::ModelOf<Net, S>& model, std::span<const Token> context, std::span<const Token> continuation) {
  Decoder decoder(model);
  Score total;
  auto logits = decoder.prefill(context);
  for (const Token token : continuation) {
    const Score one = of_step(logits, token);
    total.log_likelihood += one.log_likelihood;
    total.greedy = total.greedy && one.greedy;
    ++total.tokens;
    logits = decoder.step(token);
  }
  return total;
}

}  // namespace

TEST_CASE("a continuation's log-likelihood is the sum of its steps', in any chunks", "[generate][score]") {
  const test::ModelOf<Net, double> model(Seed{1});
  const auto tokens = some_tokens(60);
  const std::span<const Token> all(tokens);
  for (const std::size_t context : {1u, 2u, 17u, 59u, 60u}) {
    const auto expected = naive<double>(model, all.first(context), all.subspan(context));
    for (const Index chunk : {1, 7, 16, 512}) {
      INFO("context " << context << ", chunk " << chunk);
      Scorer scorer(model, ScorerOptions{.chunk = chunk});
      const Score score = scorer.continuation(all.first(context), all.subspan(context));
      CHECK(score.tokens == expected.tokens);
      CHECK(std::abs(score.log_likelihood - expected.log_likelihood) <= 1e-11 * (1 - expected.log_likelihood));
      CHECK(score.greedy == expected.greedy);
      CHECK(score.perplexity() ==
            Approx(std::exp(-expected.log_likelihood / std::max(1.0, static_cast<double>(60 - context)))));
    }
  }
}

TEST_CASE("the output of greedy decoding is greedy, and with one token changed it is not", "[generate][score]") {
  const test::ModelOf<Net> model(Seed{1});
  const auto prompt = some_tokens(5);
  Decoder decoder(model);
  std::vector<Token> written;
  for (const Token token : decoder.generate(prompt, Greedy{}, Seed{1}, 12)) written.push_back(token);
  Scorer scorer(model, ScorerOptions{.chunk = 4});
  CHECK(scorer.continuation(prompt, written).greedy);
  written[7] = (written[7] + 1) % 19;
  CHECK_FALSE(scorer.continuation(prompt, written).greedy);
}

TEST_CASE("windows predict every token but the first once, from the contents of their window", "[generate][score]") {
  const test::ModelOf<Net, double> model(Seed{1});
  Scorer scorer(model, ScorerOptions{.chunk = 16});
  for (const Index size : {1, 2, 9, 10, 11, 37}) {
    const auto tokens = some_tokens(size);
    const std::span<const Token> all(tokens);
    for (const Index stride : {1, 3, 9}) {
      INFO(size << " tokens, stride " << stride);
      const Index length = 10;
      double expected = 0;
      for (Index t = 1; t < size; ++t) {
        // The first window that contains it.
        const Index window = t < length ? 0 : (t - length + stride) / stride;
        const auto begin = static_cast<std::size_t>(window * stride);
        const auto context = all.subspan(begin, static_cast<std::size_t>(t) - begin);
        expected += naive<double>(model, context, all.subspan(static_cast<std::size_t>(t), 1)).log_likelihood;
      }
      const Score score = scorer.windows(tokens, length, stride);
      CHECK(score.tokens == size - 1);
      CHECK(std::abs(score.log_likelihood - expected) <= 1e-11 * (1 - expected));
    }
    CHECK(std::abs(scorer.text(tokens).log_likelihood - scorer.windows(tokens, size + 1, 1).log_likelihood) <= 1e-11);
  }
}

TEST_CASE("bits per byte depend on the number of bytes, not of tokens", "[generate][score]") {
  const Score score{-10 * std::log(2.0), 4, true};
  CHECK(score.bits_per_byte(5) == Approx(2.0));
  CHECK(score.perplexity() == Approx(std::pow(2.0, 2.5)));
}

TEST_CASE("scoring refuses invalid arguments, and allocates nothing", "[generate][score]") {
  const test::ModelOf<Net> model(Seed{1});
  Scorer scorer(model, ScorerOptions{.chunk = 8});
  const auto tokens = some_tokens(30);
  const std::span<const Token> all(tokens);
  CHECK_THROWS_WITH(scorer.continuation({}, tokens), test::Contains("context.size() is 0"));
  CHECK_THROWS_WITH(scorer.text({}), test::Contains("tokens.size() is 0"));
  CHECK_THROWS_WITH(scorer.windows(tokens, 1, 1), test::Contains("length is 1"));
  CHECK_THROWS_WITH(scorer.windows(tokens, 8, 8), test::Contains("stride is 8") && test::Contains("1 to 7"));
  const std::vector<Token> bad{1, 19};
  CHECK_THROWS_WITH(scorer.continuation(tokens, bad), test::Contains("continuation[1] is 19"));
  CHECK_THROWS_WITH(scorer.continuation(bad, tokens), test::Contains("context[1] is 19"));
  CHECK_THROWS_WITH(scorer.text(bad), test::Contains("tokens[1] is 19"));
  CHECK_THROWS_WITH(scorer.windows(bad, 8, 4), test::Contains("tokens[1] is 19"));
  for (const Index chunk : {Index{0}, Index{-1}, (Index{1} << 40) + 1, Index{1} << 62}) {
    CHECK_THROWS_WITH((Scorer(model, ScorerOptions{.chunk = chunk})),
                      "chunk is " + std::to_string(chunk) + "; allowed: 1 to 2^40 tokens");
  }
  const test::AllocationCounter control;
  ::operator delete(::operator new(8));
  CHECK(control.count() == 1);  // allocations are counted
  const test::AllocationCounter counter;
  (void)scorer.continuation(all.first(11), all.subspan(11));
  (void)scorer.windows(all, 12, 5);
  CHECK(counter.count() == 0);
}
