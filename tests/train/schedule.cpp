#include "moe_mamba/train/schedule.hpp"

#include <cmath>
#include <limits>

#include "support/catch.hpp"

using namespace moe_mamba;

static_assert(Schedule<Cosine> && Schedule<Constant>);
static_assert(Constant{.warmup = 4}(0) == 0.25 && Constant{.warmup = 4}(3) == 1 && Constant{}(0) == 1);

TEST_CASE("The warm-up rises linearly from 1 / warmup to 1", "[train]") {
  for (const Index warmup : {1, 2, 3, 100}) {
    const Cosine cosine{.warmup = warmup, .steps = 200};
    const Constant constant{.warmup = warmup};
    for (Index step = 0; step < warmup; ++step) {
      CHECK(cosine(step) == double(step + 1) / double(warmup));
      CHECK(constant(step) == cosine(step));
    }
    CHECK(cosine(warmup) == 1);
    CHECK(constant(warmup) == 1);
    CHECK(constant(1'000'000'000'000) == 1);
  }
}

TEST_CASE("The cosine falls from 1 to the floor, passes their mean half way and stays", "[train]") {
  for (const double floor : {0.0, 0.1, 0.5, 1.0}) {
    for (const Index warmup : {0, 10}) {
      const Cosine cosine{.warmup = warmup, .steps = warmup + 1000, .floor = floor};
      cosine.check();
      CHECK(cosine(warmup) == 1);
      // A few roundings of numbers near 1.
      CHECK(std::abs(cosine(warmup + 500) - (0.5 * (1 + floor))) <= 1e-15);
      CHECK(std::abs(cosine(warmup + 250) - (floor + (1 - floor) * (0.5 + std::sqrt(0.125)))) <= 1e-15);
      CHECK(cosine(warmup + 1000) == floor);
      CHECK(cosine(warmup + 1001) == floor);
      CHECK(cosine(std::numeric_limits<Index>::max()) == floor);
      for (Index step = warmup; step < warmup + 1000; ++step) {
        CHECK(cosine(step + 1) <= cosine(step));
        CHECK(cosine(step) >= floor);
        CHECK(cosine(step) <= 1);
      }
    }
  }
}

TEST_CASE("A run that is all warm-up ends at the floor", "[train]") {
  const Cosine cosine{.warmup = 5, .steps = 5};
  cosine.check();
  CHECK(cosine(4) == 1);
  CHECK(cosine(5) == 0.1);
  CHECK(Cosine{.steps = 1}(0) == 1);
  CHECK(Cosine{.steps = 1}(1) == 0.1);
}

TEST_CASE("Schedule options out of range are refused by name", "[train]") {
  using Catch::Matchers::StartsWith;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_WITH((Cosine{.warmup = -1, .steps = 5}.check()), StartsWith("warmup is -1"));
  CHECK_THROWS_WITH((Cosine{.warmup = 6, .steps = 5}.check()),
                    StartsWith("warmup is 6; allowed: an integer from 0 to steps, which is 5"));
  CHECK_THROWS_WITH((Cosine{.warmup = 0, .steps = 0}.check()), StartsWith("steps is 0"));
  CHECK_THROWS_WITH(
      (Cosine{.warmup = 10}.check()),
      StartsWith("steps is 0; allowed: an integer >= 1, the steps of the whole run, which must be given"));
  CHECK_THROWS_WITH((Cosine{.warmup = 0, .steps = -7}.check()), StartsWith("steps is -7"));
  for (const double floor : {-0.1, 1.1, nan}) {
    CHECK_THROWS_WITH((Cosine{.warmup = 0, .steps = 5, .floor = floor}.check()), StartsWith("floor is "));
  }
  CHECK_THROWS_WITH((Constant{.warmup = -2}.check()), StartsWith("warmup is -2"));
  CHECK_NOTHROW(Constant{}.check());
}
