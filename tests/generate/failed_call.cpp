// Calls on a decoder or scorer during which a user's operation throws.
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "moe_mamba/generate/decoder.hpp"
#include "moe_mamba/generate/scorer.hpp"
#include "moe_mamba/kernels.hpp"
#include "moe_mamba/language/language_model.hpp"
#include "moe_mamba/language/mamba.hpp"
#include "moe_mamba/language/mlp.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;

namespace {

/// How often the activation may still be called before it throws; negative: it never throws.
long calls_until_failure = -1;

struct Fragile {
  static constexpr bool gated = false;
  template <class T>
  static T value(T x) {
    if (calls_until_failure >= 0 && calls_until_failure-- == 0) throw std::runtime_error("fragile");
    return std::tanh(x);
  }
  template <class T>
  static T derivative(T x) {
    return T(1) - std::tanh(x) * std::tanh(x);
  }
};

using Net = LanguageModel<Vocabulary<7>, Width<4>, Mamba<State<2>>, Mlp<Hidden<3>, Fragile>, Mamba<State<2>>>;
using DecoderType = Decoder<Net, float, Cpu>;

const std::vector<Token> first{1, 2, 3}, second{4, 5, 6, 0, 1};

/// Makes the call with its n-th activation failing, and returns whether it failed.
template <class Call>
bool fails(long n, const Call& call) {
  bool failed = false;
  calls_until_failure = n;
  try {
    call();
  } catch (const std::runtime_error&) {
    failed = true;
  }
  calls_until_failure = -1;
  return failed;
}

std::vector<float> logits_after(DecoderType& decoder, std::span<const Token> tokens) {
  const auto logits = decoder.prefill(tokens);
  return {logits.begin(), logits.end()};
}

/// Lets each activation fail in turn: the decoder reports that its state is lost until it is given another.
template <class Call>
void check_each_failure(const Call& call) {
  const Model<Net> model(Seed{1});
  Decoder whole(model, DecoderOptions{.chunk = 2});
  const auto from_nothing = logits_after(whole, second);
  whole.reset();
  whole.prefill(first);
  const auto kept = whole.state();
  const auto from_first = logits_after(whole, second);
  long failures = 0;
  for (long n = 0;; ++n, ++failures) {
    Decoder decoder(model, DecoderOptions{.chunk = 2});
    decoder.prefill(first);
    if (!fails(n, [&] { call(decoder); })) break;
    const auto lost = [&](const auto& other) {
      CHECK_THROWS_WITH(other(), "the decoder's state was lost as a call failed; allowed: restore() or reset()");
      CHECK_THROWS_AS(other(), OrderError);
    };
    lost([&] { decoder.state(); });
    lost([&] { decoder.step(1); });
    lost([&] { decoder.prefill(first); });
    lost([&] { decoder.generate(std::span<const Token>(first), Greedy{}, Seed{1}, 2); });
    CHECK_THROWS(decoder.generate(std::span<const Token>(), Greedy{}, Seed{1}, 2));  // from logits of no meaning
    if (n % 2 == 0) {
      decoder.restore(kept);
      CHECK(logits_after(decoder, second) == from_first);
    } else {
      decoder.reset();
      CHECK(logits_after(decoder, second) == from_nothing);
    }
  }
  CHECK(failures >= 3);
}

}  // namespace

TEST_CASE("a decoder does not continue from the middle of a failed call", "[generate]") {
  check_each_failure([](DecoderType& decoder) { decoder.step(2); });
  check_each_failure([](DecoderType& decoder) { decoder.prefill(second); });
  check_each_failure([](DecoderType& decoder) {
    for (const Token token : decoder.generate(std::span<const Token>(second), Greedy{}, Seed{1}, 3))
      static_cast<void>(token);
  });
}

TEST_CASE("a scorer is unchanged after a failed call", "[generate]") {
  const Model<Net> model(Seed{1});
  Scorer scorer(model, ScorerOptions{.chunk = 2});
  const double expected = scorer.continuation(first, second).log_likelihood;
  long failures = 0;
  for (long n = 0; fails(n, [&] { scorer.continuation(first, second); }); ++n, ++failures)
    REQUIRE(scorer.continuation(first, second).log_likelihood == expected);
  CHECK(failures >= 21);
}
