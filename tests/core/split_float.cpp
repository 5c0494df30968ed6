// Floats split in two halves: nothing is lost, and any pair of halves combines to a number near the upper one.
#include "moe_mamba/core/split_float.hpp"

#include <bit>
#include <cmath>
#include <utility>
#include <vector>

#include "support/catch.hpp"

using namespace moe_mamba;

namespace {

std::uint32_t bits(float value) { return std::bit_cast<std::uint32_t>(value); }

bfloat16 upper_of(std::uint32_t half) {
  bfloat16 result;
  result.bits = static_cast<std::uint16_t>(half);
  return result;
}

/// 16-bit halves: both ends, both sides of the middle, and some in between.
std::vector<std::uint32_t> some_halves() {
  std::vector<std::uint32_t> halves = {0,      1,      2,      0x7f,   0x80,   0x3f80, 0x7f7e, 0x7f7f, 0x7f80, 0x7f81,
                                       0x7fbf, 0x7fc0, 0x7ffe, 0x7fff, 0x8000, 0x8001, 0x8002, 0x807f, 0x8080, 0xbf80,
                                       0xff7e, 0xff7f, 0xff80, 0xff81, 0xffbf, 0xffc0, 0xfffe, 0xffff};
  for (std::uint32_t half = 5; half < 0x10000; half += 0x10000 / 37) halves.push_back(half);
  return halves;
}

/// Calls visit(upper, lower) for every value of each half with some values of the other. (All 2^32 pairs passed in a
/// quarter of a minute.)
template <class Visit>
void visit_halves(const Visit& visit) {
  for (const std::uint32_t some : some_halves()) {
    for (std::uint32_t every = 0; every < 0x10000; ++every) {
      visit(some, every);
      visit(every, some);
    }
  }
}

}  // namespace

TEST_CASE("a split float is joined to the same bits, unless it rounds to infinity or is NaN", "[core]") {
  std::uint32_t wrong = 0;
  visit_halves([&](std::uint32_t upper, std::uint32_t lower) {
    const std::uint32_t word = upper << 16 | lower;
    const float value = std::bit_cast<float>(word);
    const SplitFloat halves = split_float(value);
    const float joined = join_float(halves), stored = static_cast<float>(halves.upper);
    bool kept = std::signbit(stored) == std::signbit(value);
    if (std::isnan(value)) {
      kept = kept && std::isnan(stored) && std::isnan(joined) && halves.remainder == 0;
    } else if (std::abs(value) >= 0x1.ffp127f) {
      kept = kept && std::isinf(stored) && std::isinf(joined) && halves.remainder == 0;
    } else {
      kept = kept && std::isfinite(stored) && bits(joined) == word;
    }
    if (!kept) wrong = word;
  });
  CHECK(wrong == 0);
}

TEST_CASE("the upper half is the nearest bfloat16, ties away from zero", "[core]") {
  std::uint32_t wrong = 0;
  visit_halves([&](std::uint32_t upper, std::uint32_t lower) {
    const std::uint32_t word = upper << 16 | lower;
    const double value = std::abs(static_cast<double>(std::bit_cast<float>(word)));
    if (!(value < 0x1.ffp127)) return;
    // The neighbours by magnitude; the successor of the largest is 2^128, encoded as infinity.
    const std::uint32_t low = upper & 0x7fffu;
    const double below = static_cast<double>(upper_of(low));
    const double above = low == 0x7f7f ? 0x1p128 : static_cast<double>(upper_of(low + 1));
    const double expected = value - below < above - value ? below : above;
    if (std::abs(static_cast<double>(split_float(std::bit_cast<float>(word)).upper)) != expected) wrong = word;
  });
  CHECK(wrong == 0);
}

TEST_CASE("any two halves combine to a float that rounds to the upper half and has its sign", "[core]") {
  std::uint32_t wrong = 0;
  visit_halves([&](std::uint32_t upper, std::uint32_t lower) {
    const SplitFloat halves{upper_of(upper), static_cast<std::int16_t>(lower)};
    const float stored = static_cast<float>(halves.upper), joined = join_float(halves);
    const bool holds = std::isfinite(stored) ? std::isfinite(joined) && split_float(joined).upper.bits == upper &&
                                                   (split_float(joined).remainder == halves.remainder ||
                                                    (stored == 0 && bits(joined) == bits(stored)))
                                             : bits(joined) == bits(stored);
    if (!holds || std::signbit(joined) != std::signbit(stored)) wrong = upper << 16 | lower;
  });
  CHECK(wrong == 0);
}

TEST_CASE("halves at the edges", "[core]") {
  const auto halves = [](std::uint32_t word) {
    const SplitFloat result = split_float(std::bit_cast<float>(word));
    return std::pair<int, int>(result.upper.bits, result.remainder);
  };
  CHECK(halves(0) == std::pair(0, 0));
  CHECK(halves(0x80000000) == std::pair(0x8000, 0));
  CHECK(halves(0x00007fff) == std::pair(0, 0x7fff));        // denormal, rounds to 0
  CHECK(halves(0x00008000) == std::pair(1, -0x8000));       // a tie
  CHECK(halves(0x80008000) == std::pair(0x8001, -0x8000));  // away from zero here too
  CHECK(halves(0x3f800000) == std::pair(0x3f80, 0));
  CHECK(halves(0x3f808000) == std::pair(0x3f81, -0x8000));  // where ties to even would round down
  CHECK(halves(0x7f7f7fff) == std::pair(0x7f7f, 0x7fff));   // the largest that is kept
  CHECK(halves(0x7f7f8000) == std::pair(0x7f80, 0));
  CHECK(halves(0xff7fffff) == std::pair(0xff80, 0));
  CHECK(halves(0x7f800000) == std::pair(0x7f80, 0));
  CHECK(halves(0x7f800001) == std::pair(0x7fc0, 0));  // a signalling NaN becomes quiet
  CHECK(halves(0xffffffff) == std::pair(0xffff, 0));
  for (const std::uint32_t zero : {0u, 0x8000u}) {
    CHECK(bits(join_float({upper_of(zero), -1})) == zero << 16);
    CHECK(bits(join_float({upper_of(zero), -0x8000})) == zero << 16);
    CHECK(bits(join_float({upper_of(zero), 3})) == (zero << 16 | 3));
  }
}
