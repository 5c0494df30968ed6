// Mamba against transformers' MambaForCausalLM.
#include "families/fixture.hpp"

using namespace moe_mamba;
using test::check_fixture;

TEST_CASE("Mamba with Expand<1> and step rank 1 matches transformers", "[families][mamba]") {
  check_fixture<test::SmallMamba>("mamba");
}

TEST_CASE("Mamba with biases and an untied head matches transformers", "[families][mamba]") {
  check_fixture<test::MambaWithBiases>("mamba_biases");
}

TEST_CASE("Mamba of one state and two taps over one step matches transformers", "[families][mamba]") {
  check_fixture<test::MambaOfOneState>("mamba_step");
}

TEST_CASE("Mamba of 96 states matches transformers", "[families][mamba]") {
  check_fixture<test::MambaOfManyStates>("mamba_states");
}

TEST_CASE("Mamba over 1031 steps matches transformers", "[families][mamba]") {
  check_fixture<test::LongMamba>("mamba_long");
}
