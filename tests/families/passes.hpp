#pragma once

#include "families/definitions.hpp"
#include "moe_mamba/model/passes.hpp"

/// The passes of the fixtures' models with parameters stored as S, which tests/passes compiles once for all tests.
#define MOE_MAMBA_TEST_FAMILY_PASSES(declared, S)                      \
  declared template struct PassesOf<test::SmallMamba, S, Cpu>;         \
  declared template struct PassesOf<test::MambaWithBiases, S, Cpu>;    \
  declared template struct PassesOf<test::MambaOfOneState, S, Cpu>;    \
  declared template struct PassesOf<test::MambaOfManyStates, S, Cpu>;  \
  declared template struct PassesOf<test::LongMamba, S, Cpu>;          \
  declared template struct PassesOf<test::SmallFalconMamba, S, Cpu>;   \
  declared template struct PassesOf<test::InnerFalconMamba, S, Cpu>;   \
  declared template struct PassesOf<test::SmallBlackMamba, S, Cpu>;    \
  declared template struct PassesOf<test::SmallMixtral, S, Cpu>;       \
  declared template struct PassesOf<test::SmallMixtralWindow, S, Cpu>; \
  declared template struct PassesOf<test::MixtralOfOneStep, S, Cpu>;   \
  declared template struct PassesOf<test::SmallJamba, S, Cpu>;         \
  declared template struct PassesOf<test::SmallJambaDense, S, Cpu>;    \
  declared template struct PassesOf<test::JambaOfOneStep, S, Cpu>;     \
  declared template struct PassesOf<test::SmallLlama, S, Cpu>;         \
  declared template struct PassesOf<test::SmallMistral, S, Cpu>;       \
  declared template struct PassesOf<test::SmallQwen2, S, Cpu>;

#define MOE_MAMBA_TEST_OTHER_FAMILY_PASSES(declared)                         \
  declared template struct PassesOf<test::DeepMamba, float, Cpu>;            \
  declared template struct PassesOf<test::ShallowMamba, float, Cpu>;         \
  declared template struct PassesOf<test::OtherMambaWithBiases, float, Cpu>; \
  declared template struct PassesOf<test::OtherBlackMamba, float, Cpu>;      \
  declared template struct PassesOf<test::JambaOfMamba, float, Cpu>;         \
  declared template struct PassesOf<test::JambaOfAttention, float, Cpu>;

namespace moe_mamba {
MOE_MAMBA_TEST_FAMILY_PASSES(extern, float)
MOE_MAMBA_TEST_FAMILY_PASSES(extern, double)
MOE_MAMBA_TEST_FAMILY_PASSES(extern, bfloat16)
MOE_MAMBA_TEST_OTHER_FAMILY_PASSES(extern)
}  // namespace moe_mamba
