// Reading and writing text.
#include "moe_mamba/generate/decoder.hpp"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "model/passes.hpp"
#include "support/allocations.hpp"
#include "support/backend.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

using namespace moe_mamba;

namespace {

using Net = test::WritingNet;
using NetDecoder = Decoder<Net, float, test::Backend>;

std::vector<Token> some_tokens(Index count) {
  Random random(Seed{3});
  std::vector<Token> tokens(static_cast<std::size_t>(count));
  for (auto& token : tokens) token = static_cast<Token>(random.below(19));
  return tokens;
}

std::vector<Token> taken(NetDecoder& decoder, std::span<const Token> prompt, Sampling sampling, Index count) {
  std::vector<Token> tokens;
  for (const Token token : decoder.generate(prompt, sampling, Seed{7}, count)) tokens.push_back(token);
  return tokens;
}

}  // namespace

TEST_CASE("logits after a prompt do not depend on how it was read", "[generate]") {
  const test::ModelOf<Net, double> model(Seed{1});
  const auto prompt = some_tokens(37);
  Decoder whole(model, DecoderOptions{.chunk = 64});
  const auto logits = whole.prefill(prompt);
  const std::vector<double> expected(logits.begin(), logits.end());
  for (const Index chunk : {1, 2, 7, 36, 37, 38}) {
    Decoder decoder(model, DecoderOptions{.chunk = chunk});
    const auto actual = decoder.prefill(prompt);
    CHECK(test::relative_error(std::vector<double>(actual.begin(), actual.end()), expected) < 1e-12);
  }
  Decoder steps(model);
  for (const Token token : prompt) steps.step(token);
  CHECK(test::relative_error(std::vector<double>(steps.logits().begin(), steps.logits().end()), expected) < 1e-12);
}

TEST_CASE("greedy generation takes the largest logit and reads it back", "[generate]") {
  const test::ModelOf<Net> model(Seed{1});
  const auto prompt = some_tokens(5);
  Decoder decoder(model), naive(model);
  std::vector<Token> expected;
  auto logits = naive.prefill(prompt);
  for (int i = 0; i < 12; ++i) {
    expected.push_back(static_cast<Token>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    logits = naive.step(expected.back());
  }
  CHECK(taken(decoder, prompt, Greedy{}, 12) == expected);
}

TEST_CASE("exactly the requested number of tokens is generated, including zero", "[generate]") {
  const test::ModelOf<Net> model(Seed{1});
  const auto prompt = some_tokens(5);
  for (const Index count : {0, 1, 2, 9}) {
    Decoder decoder(model);
    CHECK(taken(decoder, prompt, TopP{0.9f}, count).size() == static_cast<std::size_t>(count));
  }
}

TEST_CASE("generating in two calls equals generating in one", "[generate]") {
  const test::ModelOf<Net> model(Seed{1});
  const auto prompt = some_tokens(5);
  Decoder once(model), twice(model);
  const auto expected = taken(once, prompt, Greedy{}, 12);
  auto text = taken(twice, prompt, Greedy{}, 5);
  for (const Token token : taken(twice, {}, Greedy{}, 7)) text.push_back(token);
  CHECK(text == expected);
  CHECK(test::numbers(once.state()) == test::numbers(twice.state()));
}

TEST_CASE("of two generations on one decoder the earlier one is refused and the later one undisturbed", "[generate]") {
  const test::ModelOf<Net> model(Seed{1});
  const auto prompt = some_tokens(5), other = some_tokens(9);
  Decoder alone(model), decoder(model);
  const auto expected = taken(alone, other, TopP{0.9f}, 6);
  const auto refusal = test::Contains("another generate() has begun on this decoder since this one did");

  auto unread = decoder.generate(prompt, Greedy{}, Seed{1}, 6),
       earlier = decoder.generate(prompt, Greedy{}, Seed{1}, 6);
  CHECK_THROWS_WITH(unread.begin(), refusal);
  auto at = earlier.begin();
  ++at;
  auto bad = other;
  bad[0] = 77;
  CHECK_THROWS_AS(decoder.generate(bad, Greedy{}, Seed{1}), std::out_of_range);  // which has not begun
  CHECK_NOTHROW(++at);
  decoder.reset();
  auto later = decoder.generate(other, TopP{0.9f}, Seed{7}, 6);
  std::vector<Token> tokens;
  for (auto it = later.begin(); it != later.end(); ++it) {
    tokens.push_back(*it);
    CHECK_THROWS_WITH(++at, refusal);
    CHECK_THROWS_WITH(earlier.begin(), refusal);
  }
  CHECK(tokens == expected);
  CHECK((test::numbers(decoder.state()) == test::numbers(alone.state())));
  CHECK_NOTHROW(later.begin());  // at its end

  auto finished = decoder.generate(prompt, Greedy{}, Seed{1}, 2);
  for (const Token token : finished) CHECK_NOTHROW((void)token);
  taken(decoder, prompt, Greedy{}, 2);
  CHECK(finished.begin() == finished.end());
}

TEST_CASE("a generation needs logits: after a reset, or a restore without them, it is refused", "[generate]") {
  const test::ModelOf<Net> model(Seed{1});
  Decoder decoder(model);
  const auto state = decoder.state();
  const auto forget = [&](bool restored) { restored ? decoder.restore(state) : decoder.reset(); };
  for (const bool restored : {false, true}) {
    auto generation = decoder.generate(some_tokens(5), Greedy{}, Seed{1}, 2);
    forget(restored);
    CHECK_THROWS_WITH(generation.begin(), test::Contains("the decoder has been reset, or restored without logits"));
    decoder.step(3);
    CHECK_NOTHROW(generation.begin());
  }
  static_assert(!std::is_copy_constructible_v<NetDecoder::Generation>);
  static_assert(std::is_move_constructible_v<NetDecoder::Generation>);
}

TEST_CASE("the same seed gives the same text, and a restored state continues identically", "[generate]") {
  const test::ModelOf<Net> model(Seed{1});
  const auto prompt = some_tokens(5);
  Decoder a(model), b(model);
  const auto text = taken(a, prompt, TopP{0.9f}, 20);
  CHECK(text == taken(b, prompt, TopP{0.9f}, 20));
  CHECK(test::numbers(a.state()) == test::numbers(b.state()));

  const auto kept = a.state();
  const auto logits = a.step(3);
  const std::vector<float> expected(logits.begin(), logits.end());
  taken(a, prompt, TopP{0.9f}, 5);
  CHECK_FALSE(test::numbers(a.state()) == test::numbers(kept));
  a.restore(kept);
  const auto again = a.step(3);
  CHECK(std::equal(expected.begin(), expected.end(), again.begin()));
}

TEST_CASE("a state restored with its logits continues as if uninterrupted", "[generate]") {
  const test::ModelOf<Net> model(Seed{1});
  Decoder a(model), b(model);
  a.prefill(some_tokens(9));
  const auto kept = a.state();
  const std::vector<float> logits(a.logits().begin(), a.logits().end());
  const auto text = taken(a, {}, TopP{0.9f}, 20);
  b.restore(kept, logits);
  CHECK(taken(b, {}, TopP{0.9f}, 20) == text);
  b.restore(kept);
  CHECK_THROWS_AS(taken(b, {}, TopP{0.9f}, 20), std::invalid_argument);
  CHECK_THROWS_WITH(b.restore(kept, std::span(logits).first(18)), test::Contains("logits.size() is 18"));
}

TEST_CASE("states are plain numbers that can be moved as bytes", "[generate]") {
  const test::ModelOf<Net> model(Seed{1});
  Decoder a(model), b(model);
  a.prefill(some_tokens(9));
  const auto sent = test::numbers(a.state());
  NetDecoder::StatesType received(1);
  received.write(sent);
  b.restore(received);
  const auto x = a.step(4), y = b.step(4);
  CHECK(std::equal(x.begin(), x.end(), y.begin()));
}

TEST_CASE("reading and sampling allocate nothing", "[generate]") {
  const test::ModelOf<Net> model(Seed{1});
  const auto prompt = some_tokens(50);
  for (const int threads : {1, 2}) {
    auto device = test::open(threads);
    Decoder decoder(model, device, DecoderOptions{.chunk = 16});
    auto generation = decoder.generate(prompt, TopP{0.9f}, Seed{1}, 30);
    const test::AllocationCounter counter;
    decoder.prefill(prompt);
    decoder.step(3);
    for (const Token token : generation) CHECK_NOTHROW((void)token);
    CHECK(counter.count() == 0);
  }
}

TEST_CASE("generating allocates for its sampler and a prompt of bytes, and nothing afterwards", "[generate]") {
  const test::ModelOf<Net> model(Seed{1});
  const auto prompt = some_tokens(50);
  auto device = test::open(1);
  Decoder decoder(model, device, DecoderOptions{.chunk = 16});
  for (int times = 0; times < 3; ++times) {
    const test::AllocationCounter of_tokens;
    auto generation = decoder.generate(prompt, TopP{0.9f}, Seed{1}, 30);
    CHECK(of_tokens.count() == (test::Backend::Memory::on_host ? 1 : 0));
    for (const Token token : generation) CHECK_NOTHROW((void)token);
    CHECK(of_tokens.count() == (test::Backend::Memory::on_host ? 1 : 0));
    const test::AllocationCounter of_bytes;
    for (const Token token : decoder.generate("\x1\x2\x3", TopP{0.9f}, Seed{1}, 30)) CHECK_NOTHROW((void)token);
    CHECK(of_bytes.count() == (test::Backend::Memory::on_host ? 2 : 1));
  }
}

TEST_CASE("a bad token is refused and changes nothing", "[generate]") {
  const test::ModelOf<Net> model(Seed{1});
  Decoder decoder(model, DecoderOptions{.chunk = 2});
  CHECK_THROWS_AS(decoder.generate(std::span<const Token>{}, Greedy{}, Seed{1}), std::invalid_argument);
  decoder.prefill(some_tokens(9));
  const auto before = decoder.state();
  const std::vector<float> logits(decoder.logits().begin(), decoder.logits().end());
  CHECK_THROWS_WITH(decoder.step(19), test::Contains("19") && test::Contains("0 to 18"));
  CHECK_THROWS_AS(decoder.step(-1), std::out_of_range);
  auto tokens = some_tokens(9);
  tokens[8] = 77;
  CHECK_THROWS_AS(decoder.prefill(tokens), std::out_of_range);
  CHECK_THROWS_WITH(decoder.prefill(tokens), "tokens[8] is 77; allowed: 0 to 18");
  CHECK_THROWS_WITH(decoder.generate(std::span<const Token>(tokens), Greedy{}, Seed{1}),
                    "prompt[8] is 77; allowed: 0 to 18");
  CHECK_THROWS_WITH(decoder.generate("\x1"
                                     "a",
                                     Greedy{}, Seed{1}),
                    "prompt[1] is 97; allowed: 0 to 18");
  CHECK_THROWS_AS(decoder.prefill({}), std::invalid_argument);
  CHECK(test::numbers(decoder.state()) == test::numbers(before));
  CHECK(std::equal(logits.begin(), logits.end(), decoder.logits().begin()));
  for (const Index chunk : {Index{0}, Index{-1}, (Index{1} << 40) + 1, Index{1} << 62}) {
    CHECK_THROWS_WITH((Decoder(model, DecoderOptions{.chunk = chunk})),
                      "chunk is " + std::to_string(chunk) + "; allowed: 1 to 2^40 tokens");
  }
}
