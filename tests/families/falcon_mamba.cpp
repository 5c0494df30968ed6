// Falcon-Mamba against transformers' FalconMambaForCausalLM.
#include "families/fixture.hpp"

using namespace moe_mamba;

TEST_CASE("Falcon-Mamba matches transformers", "[families][falcon_mamba]") {
  test::check_fixture<test::SmallFalconMamba>("falcon_mamba");
}

TEST_CASE("Falcon-Mamba whose config states its inner width twice matches transformers", "[families][falcon_mamba]") {
  test::check_fixture<test::InnerFalconMamba>("falcon_mamba_inner");
}
