// BlackMamba against an implementation from its formulas, tests/fixtures/black_mamba.py.
#include "families/fixture.hpp"

using namespace moe_mamba;

TEST_CASE("BlackMamba agrees with its formulas", "[families][black_mamba]") {
  test::check_fixture<test::SmallBlackMamba>("black_mamba");
}
