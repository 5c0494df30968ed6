// Models of Mamba layers in files of an older version.
#include "io/older_files.hpp"

using test::older::Files;
using namespace test::kept;

namespace {

constexpr std::tuple all{Files<MambaSizes, float>{"MambaSizes-float"},   Files<MambaSizes, double>{"MambaSizes-double"},
                         Files<MambaBiases, float>{"MambaBiases-float"}, Files<Series, float>{"Series-float"},
                         Files<Series, bfloat16>{"Series-bfloat16"},     Files<WideSeries, float>{"WideSeries-float"}};

}  // namespace

TEST_CASE("models of Mamba layers load and resume from older files", "[io]") { test::older::check(all); }
TEST_CASE("writes files of mamba", "[.][writes]") { test::older::write(all); }
