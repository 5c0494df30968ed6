// Mixtures of experts in files of an older version.
#include "io/older_files.hpp"

using test::older::Files;
using namespace test::kept;

namespace {

constexpr std::tuple all{Files<Switch, float>{"Switch-float"},
                         Files<Switch, double>{"Switch-double"},
                         Files<Switch, bfloat16>{"Switch-bfloat16"},
                         Files<SeveralExperts, float>{"SeveralExperts-float"},
                         Files<LimitedExperts, float>{"LimitedExperts-float"},
                         Files<Routers, float>{"Routers-float"}};

}  // namespace

TEST_CASE("mixtures of experts load and resume from older files", "[io]") { test::older::check(all); }
TEST_CASE("writes files of experts", "[.][writes]") { test::older::write(all); }
