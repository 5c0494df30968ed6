// Attention, norms and several layers together in files of an older version.
#include "io/older_files.hpp"

using test::older::Files;
using namespace test::kept;

namespace {

constexpr std::tuple all{Files<AttentionKinds, float>{"AttentionKinds-float"},
                         Files<AttentionKinds, bfloat16>{"AttentionKinds-bfloat16"},
                         Files<Branches, float>{"Branches-float"},
                         Files<Hybrid, float>{"Hybrid-float"},
                         Files<Hybrid, double>{"Hybrid-double"},
                         Files<Activations, float>{"Activations-float"},
                         Files<Norms, float>{"Norms-float"},
                         Files<Smallest, float>{"Smallest-float"}};

}  // namespace

TEST_CASE("attention, norms and combinations of layers load and resume from older files", "[io]") {
  test::older::check(all);
}
TEST_CASE("writes files of others", "[.][writes]") { test::older::write(all); }
