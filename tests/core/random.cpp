// Random numbers are those of the published generator, on every machine.
#include "moe_mamba/core/random.hpp"

#include "support/catch.hpp"

using namespace moe_mamba;

// The known answers that come with the authors' library Random123, for philox4x32 in ten rounds.
static_assert(philox({{0, 0, 0, 0}}, 0) == PhiloxBlock{{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}});
static_assert(philox({{~0u, ~0u, ~0u, ~0u}}, ~std::uint64_t{0}) ==
              PhiloxBlock{{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}});
static_assert(philox({{0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}}, 0x299f31d0a4093822u) ==
              PhiloxBlock{{0xd16cfe09u, 0x94fdcceb, 0x5001e420u, 0x24126ea1u}});

TEST_CASE("A stream resumes from its position, and its bits are those of the generator", "[core]") {
  constexpr std::uint64_t seed = 0x0123456789abcdef, stream = 0xfedcba9876543210, position = 0xffffffff;
  Random random(Seed{seed}, stream, position);
  for (std::uint64_t at = position; at < position + 5; ++at) {
    const PhiloxBlock block = philox({{std::uint32_t(at), std::uint32_t(at >> 32), 0x76543210u, 0xfedcba98u}}, seed);
    CHECK(random.position() == at);
    CHECK(Random(Seed{seed}, stream, at).bits() == random.bits());
    CHECK(Random(Seed{seed}, stream, at).bits() == ((std::uint64_t{block.words[1]} << 32) | block.words[0]));
  }
  CHECK(Random(Seed{1}).bits() != Random(Seed{2}).bits());
  CHECK(Random(Seed{1}, 0).bits() != Random(Seed{1}, 1).bits());
}

TEST_CASE("Uniform numbers lie in their interval and fill it evenly", "[core]") {
  Random random(Seed{3});
  const int draws = 100000;
  double sum = 0;
  int below_tenth = 0;
  for (int i = 0; i < draws; ++i) {
    const double value = random.uniform();
    REQUIRE((value >= 0 && value < 1));
    sum += value;
    below_tenth += value < 0.1 ? 1 : 0;
  }
  // Five standard deviations of a mean of 100000, and of a count of 10000.
  CHECK(std::abs(sum / draws - 0.5) < 5 * std::sqrt(1.0 / 12 / draws));
  CHECK(std::abs(below_tenth - 10000) < 5 * std::sqrt(0.09 * draws));
}
