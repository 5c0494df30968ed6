// The texts of errors at the API.
#include "moe_mamba/core/check.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "moe_mamba/core/random.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;

TEST_CASE("Errors show numbers in the shortest form that identifies them", "[core]") {
  const auto text = [](auto value) { return error_text("x", value, "1"); };
  CHECK(text(0.1) == "x is 0.1; allowed: 1");
  CHECK(text(0.1f) == "x is 0.1; allowed: 1");
  CHECK(text(1.0) == "x is 1; allowed: 1");
  CHECK(text(std::nextafter(1.0f, 2.0f)) == "x is 1.0000001; allowed: 1");
  CHECK(text(std::nextafter(1.0, 2.0)) == "x is 1.0000000000000002; allowed: 1");
  CHECK(text(-1e-5) == "x is -1e-05; allowed: 1");
  CHECK(text(1234567.0) == "x is 1234567; allowed: 1");
  CHECK(text(-std::numeric_limits<double>::infinity()) == "x is -inf; allowed: 1");
  CHECK(text(7) == "x is 7; allowed: 1");
  CHECK(text("seven") == "x is seven; allowed: 1");
  Random random(Seed{1});
  for (int i = 0; i < 1000; ++i) {
    const double value = std::ldexp(static_cast<double>(random.below(std::uint64_t{1} << 53)) + 1,
                                    static_cast<int>(random.below(2000)) - 1060);
    CHECK(std::stod(text(value).substr(5)) == value);
    const auto single = static_cast<float>(random.below(1 << 24)) / 3;
    CHECK(std::stof(text(single).substr(5)) == single);
  }
}

TEST_CASE("A range of one number is that number, an empty one none", "[core]") {
  CHECK(detail::range_text(1, 5) == "1 to 5");
  CHECK(detail::range_text(-1, 0, "an integer from ") == "an integer from -1 to 0");
  CHECK(detail::range_text(1, 1, "an integer from ") == "1");
  CHECK(detail::range_text(0, -1, "an integer from ") == "none");
  CHECK(detail::range_text<std::uint64_t>(2, 0) == "none");
}

TEST_CASE("The first token outside the vocabulary is named with its index", "[core]") {
  const auto check = [](std::vector<int> tokens, int lowest) { require_tokens("tokens", tokens, lowest, 19); };
  CHECK_NOTHROW(check({}, 0));
  CHECK_NOTHROW(check({0, 18, 5}, 0));
  CHECK_NOTHROW(check({-1, 18}, -1));
  CHECK_THROWS_WITH(check({0, 18, 19, 20}, 0), "tokens[2] is 19; allowed: 0 to 18");
  CHECK_THROWS_WITH(check({-2, 18}, -1), "tokens[0] is -2; allowed: -1 to 18");
  CHECK_THROWS_AS(check({-1}, 0), std::out_of_range);
  const std::vector<int> tokens{0, 1};
  CHECK_THROWS_WITH(require_tokens("tokens", tokens, 0, 1), "tokens[1] is 1; allowed: 0");
}
