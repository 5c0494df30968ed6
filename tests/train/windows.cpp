#include "moe_mamba/train/windows.hpp"

#include <algorithm>
#include <array>
#include <numeric>
#include <string_view>

#include "support/catch.hpp"

using namespace moe_mamba;

namespace {

/// A text in which every token is its position.
std::vector<Token> positions(Index count) {
  std::vector<Token> text(static_cast<std::size_t>(count));
  std::iota(text.begin(), text.end(), 0);
  return text;
}

std::vector<Token> tokens(std::span<const Token> span) { return {span.begin(), span.end()}; }

static_assert(std::ranges::input_range<Windows<unsigned char>>);
static_assert(std::ranges::input_range<SequentialWindows<Token>>);

}  // namespace

TEST_CASE("Random windows are consecutive tokens, with targets one further on, and begin everywhere", "[train]") {
  for (const Index length : {1, 2, 7}) {
    for (const Index batch : {1, 3}) {
      const Index size = length + 5;
      const auto text = positions(size);
      auto source = windows(text, Length{length}, Batch{batch}, Seed{3});
      std::vector<int> starts(static_cast<std::size_t>(size), 0);
      const int draws = 3000;
      for (int i = 0; i < draws; ++i) {
        const TokenBatch drawn = source.next();
        REQUIRE(drawn.shape == Shape{batch, length});
        REQUIRE(drawn.inputs.size() == std::size_t(batch * length));
        REQUIRE(drawn.targets.size() == drawn.inputs.size());
        REQUIRE(!drawn.continues);
        for (Index row = 0; row < batch; ++row) {
          const Token start = drawn.inputs[std::size_t(row * length)];
          ++starts[std::size_t(start)];
          for (Index t = 0; t < length; ++t) {
            REQUIRE(drawn.inputs[std::size_t(row * length + t)] == start + t);
            REQUIRE(drawn.targets[std::size_t(row * length + t)] == start + t + 1);
          }
        }
      }
      // Places 0 … 4 fit; each is expected draws · batch / 5 times, and six standard deviations are allowed.
      const double expected = draws * double(batch) / 5, deviation = std::sqrt(expected * 0.8);
      for (Index start = 0; start < size; ++start) {
        INFO("length " << length << ", batch " << batch << ", start " << start);
        CHECK(std::abs(starts[std::size_t(start)] - (start < 5 ? expected : 0)) <= (start < 5 ? 6 * deviation : 0));
      }
    }
  }
}

TEST_CASE("Seed and position determine the batches, and a restored state resumes", "[train]") {
  const auto text = positions(1000);
  auto a = windows(text, Length{16}, Batch{4}, Seed{5}), b = windows(text, Length{16}, Batch{4}, Seed{5}),
       other = windows(text, Length{16}, Batch{4}, Seed{6});
  CHECK(a.state() == WindowsState{5, 0, WindowsOrder::random, 1000, 16, 4});
  std::vector<std::vector<Token>> batches;
  for (int i = 0; i < 10; ++i) {
    batches.push_back(tokens(a.next().inputs));
    CHECK(tokens(b.next().inputs) == batches.back());
    CHECK(tokens(other.next().inputs) != batches.back());
    if (i > 0) CHECK(batches[std::size_t(i)] != batches[std::size_t(i - 1)]);
  }
  CHECK(a.state().position == 10);
  for (const std::size_t position : {3u, 0u, 9u}) {
    other.restore({5, position});
    CHECK(tokens(other.next().inputs) == batches[position]);
    CHECK(other.state().seed == 5);
    CHECK(other.state().position == position + 1);
  }
}

TEST_CASE("A state of other windows is refused, and changes nothing", "[train]") {
  const auto text = positions(1000), longer = positions(1001);
  auto random = windows(text, Length{16}, Batch{4}, Seed{5});
  auto sequential = sequential_windows(text, Length{16}, Batch{4});
  random.next();
  sequential.next();
  const auto before = random.state();
  const auto refused = [&](const WindowsState& state, const std::string& words) {
    CHECK_THROWS_WITH(random.restore(state), test::Contains(words) && test::Contains("WindowsState{seed, position}"));
    CHECK(random.state() == before);
  };
  refused(sequential.state(), "state.order is sequential; allowed: random");
  refused(windows(longer, Length{16}, Batch{4}).state(), "state.tokens is 1001; allowed: 1000");
  refused(windows(text, Length{15}, Batch{4}).state(), "state.length is 15; allowed: 16");
  refused(windows(text, Length{16}, Batch{3}).state(), "state.batch is 3; allowed: 4");
  CHECK_THROWS_WITH(sequential.restore(before), test::Contains("state.order is random; allowed: sequential"));
  CHECK(sequential.state().position == 1);

  // A state that does not say whose it is, as an older checkpoint has it, is taken.
  random.restore({7, 3});
  CHECK(random.state() == WindowsState{7, 3, WindowsOrder::random, 1000, 16, 4});
  sequential.restore({0, 3});
  CHECK(sequential.state().position == 3);
}

TEST_CASE("A loop over windows draws exactly the batches that it sees", "[train]") {
  const auto text = positions(100);
  auto source = windows(text, Length{8}, Batch{2}, Seed{1});
  auto again = windows(text, Length{8}, Batch{2}, Seed{1});
  int count = 0;
  for (auto batch : source) {
    CHECK(tokens(batch.targets) == tokens(again.next().targets));
    if (++count == 7) break;
  }
  CHECK(source.state().position == 7);
  for (auto batch : source) {
    CHECK(tokens(batch.inputs) == tokens(again.next().inputs));
    break;
  }
  CHECK(source.state().position == 8);

  int passes = 0;
  for (auto batch : windows(text, Length{8}, Batch{2})) {
    CHECK(batch.shape.tokens() == 16);
    if (++passes == 3) break;
  }
}

TEST_CASE("A batch lies in the same memory as the one before it", "[train]") {
  const auto text = positions(100);
  auto source = windows(text, Length{8}, Batch{2});
  const TokenBatch first = source.next();
  for (int i = 0; i < 5; ++i) {
    const TokenBatch batch = source.next();
    CHECK(batch.inputs.data() == first.inputs.data());
    CHECK(batch.targets.data() == first.targets.data());
  }
}

TEST_CASE("Rows of sequential windows go through their parts of the text without gaps", "[train]") {
  for (const Index size : {2, 7, 30, 31, 32, 101}) {
    for (const Index batch : {1, 2, 3}) {
      for (const Index length : {1, 2, 5}) {
        if (length * batch + 1 > size) continue;
        INFO(size << " tokens, batch " << batch << ", length " << length);
        const auto text = positions(size);
        auto source = sequential_windows(text, Length{length}, Batch{batch});
        const Index part = (size - 1) / batch, passes = source.batches_per_pass();
        REQUIRE(passes == part / length);
        for (Index i = 0; i < 2 * passes + 1; ++i) {
          const TokenBatch drawn = source.next();
          REQUIRE(drawn.shape == Shape{batch, length});
          REQUIRE(drawn.continues == (i % passes != 0));
          for (Index row = 0; row < batch; ++row) {
            for (Index t = 0; t < length; ++t) {
              const Token expected = Token(row * part + (i % passes) * length + t);
              REQUIRE(drawn.inputs[std::size_t(row * length + t)] == expected);
              REQUIRE(drawn.targets[std::size_t(row * length + t)] == expected + 1);
            }
          }
        }
        auto restored = sequential_windows(text, Length{length}, Batch{batch});
        restored.restore(source.state());
        CHECK(tokens(restored.next().inputs) == tokens(source.next().inputs));
        CHECK(restored.state() == source.state());
      }
    }
  }
}

TEST_CASE("Text may be bytes or tokens of any kind, and bytes have no sign", "[train]") {
  const std::vector<Token> expected = {0, 127, 128, 255};
  const auto check = [&](const auto& text) {
    auto source = sequential_windows(text, Length{4}, Batch{1});
    CHECK(tokens(source.next().inputs) == expected);
    auto drawn = windows(text, Length{4}, Batch{1});
    CHECK(tokens(drawn.next().inputs) == expected);
  };
  const unsigned char bytes[] = {0, 127, 128, 255, 1};
  check(bytes);
  check(std::vector<unsigned char>(std::begin(bytes), std::end(bytes)));
  check(std::string(std::begin(bytes), std::end(bytes)));
  check(std::vector<signed char>(std::begin(bytes), std::end(bytes)));
  check(std::as_bytes(std::span(bytes)));
  check(std::vector<std::uint16_t>(std::begin(bytes), std::end(bytes)));
  check(std::array<Token, 5>{0, 127, 128, 255, 1});
  const std::string storage(std::begin(bytes), std::end(bytes));
  check(std::string_view(storage));
  // Views may be temporaries: they own nothing.
  auto source = windows(std::string_view(storage), Length{4}, Batch{1});
  CHECK(source.text().data() == storage.data());
}

TEST_CASE("Texts and shapes that do not fit are refused by name", "[train]") {
  using Catch::Matchers::StartsWith;
  const std::string text(10, 'x');
  CHECK_THROWS_WITH(windows(text, Length{0}, Batch{1}), StartsWith("length is 0; allowed: an integer from 1"));
  CHECK_THROWS_WITH(windows(text, Length{-3}, Batch{1}), StartsWith("length is -3"));
  CHECK_THROWS_WITH(windows(text, Length{4}, Batch{0}), StartsWith("batch is 0; allowed: an integer from 1"));
  CHECK_THROWS_WITH(windows(text, Length{4}, Batch{-1}), StartsWith("batch is -1"));
  CHECK_THROWS_WITH(windows(text, Length{10}, Batch{1}), StartsWith("text length is 10; allowed: at least 11 tokens"));
  CHECK_THROWS_WITH(windows(std::string_view(), Length{1}, Batch{1}), StartsWith("text length is 0"));
  CHECK_THROWS_WITH(windows(text, Length{5}, Batch{Index{1} << 61}), StartsWith("batch is 2305843009213693952"));
  CHECK_THROWS_WITH(windows(text, Length{PTRDIFF_MAX}, Batch{1}), StartsWith("length is 9223372036854775807"));
  CHECK_NOTHROW(windows(text, Length{9}, Batch{50}));

  CHECK_THROWS_WITH(sequential_windows(text, Length{0}, Batch{1}), StartsWith("length is 0"));
  CHECK_THROWS_WITH(sequential_windows(text, Length{5}, Batch{2}),
                    StartsWith("text length is 10; allowed: at least 11"));
  CHECK_THROWS_WITH(sequential_windows(text, Length{1}, Batch{10}),
                    StartsWith("text length is 10; allowed: at least 11"));
  CHECK_NOTHROW(sequential_windows(text, Length{3}, Batch{3}));
  CHECK_THROWS_AS(windows(text, Length{10}, Batch{1}), std::invalid_argument);
}

TEMPLATE_TEST_CASE("a target that is no token is refused, not masked, wherever a window ends", "[train]", std::int32_t,
                   std::uint32_t, std::int16_t) {
  for (std::size_t bad = 2; bad < 9; ++bad) {
    std::vector<TestType> text(9, 5);
    text[bad] = static_cast<TestType>(-1);
    const auto check = [&](auto batches) {
      for (int i = 0; i < 60; ++i) {
        const auto before = batches.state();
        try {
          const TokenBatch batch = batches.next();
          // What is let through, a trainer refuses: wherever the number is a target, it is an input too.
          for (Index row = 0; row < batch.shape.batch; ++row)
            CHECK(batch.targets[static_cast<std::size_t>(3 * row + 2)] >= 0);
        } catch (const std::out_of_range& error) {
          CHECK_THAT(error.what(), test::Contains("text[" + std::to_string(bad) + "] is ") &&
                                       test::Contains("; allowed: 0 to 2147483647"));
          CHECK(batches.state() == before);
          return true;
        }
      }
      return false;
    };
    const bool random_refused = check(windows(text, Length{3}, Batch{2}, Seed{bad}));
    CHECK(random_refused == (bad >= 3));
    CHECK(check(sequential_windows(text, Length{3}, Batch{2})) == (bad == 3 || bad == 7));
  }
}
