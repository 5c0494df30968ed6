#pragma once

#include "model/nets.hpp"
#include "moe_mamba/model/passes.hpp"

/// The passes of the tests' models on a backend, declared (`extern`) or compiled: those that tests have with parameters
/// of a type. For the Cpu they are compiled once for all tests in tests/passes, and passes that are not listed are
/// compiled in the test that uses them; for a CUDA device they are compiled in tests/gpu/passes, and passes that are
/// not listed do not link.
#define MOE_MAMBA_TEST_BFLOAT16_PASSES(declared, S, Backend)         \
  declared template struct PassesOf<test::MambaNet, S, Backend>;     \
  declared template struct PassesOf<test::MixtureNet, S, Backend>;   \
  declared template struct PassesOf<test::ManyWaysNet, S, Backend>;  \
  declared template struct PassesOf<test::CapacityNet, S, Backend>;  \
  declared template struct PassesOf<test::SeriesNet, S, Backend>;    \
  declared template struct PassesOf<test::AttentionNet, S, Backend>; \
  declared template struct PassesOf<test::BalancedNet, S, Backend>;  \
  declared template struct PassesOf<test::TrainedNet, S, Backend>;

#define MOE_MAMBA_TEST_FLOAT_PASSES(declared, S, Backend)            \
  MOE_MAMBA_TEST_BFLOAT16_PASSES(declared, S, Backend)               \
  declared template struct PassesOf<test::PlainMixture, S, Backend>; \
  declared template struct PassesOf<test::OneWide, S, Backend>;      \
  declared template struct PassesOf<test::ManyStates, S, Backend>;   \
  declared template struct PassesOf<test::AllExperts, S, Backend>;   \
  declared template struct PassesOf<test::ManyInputs, S, Backend>;   \
  declared template struct PassesOf<test::WritingNet, S, Backend>;

#define MOE_MAMBA_TEST_DOUBLE_PASSES(declared, S, Backend)            \
  MOE_MAMBA_TEST_FLOAT_PASSES(declared, S, Backend)                   \
  declared template struct PassesOf<test::FamilyWaysNet, S, Backend>; \
  declared template struct PassesOf<test::OddNet, S, Backend>;        \
  declared template struct PassesOf<test::UnbalancedNet, S, Backend>; \
  declared template struct PassesOf<test::FilterNet, S, Backend>;

#if !defined(MOE_MAMBA_TEST_CUDA) && !defined(__CUDACC__)
namespace moe_mamba {
MOE_MAMBA_TEST_BFLOAT16_PASSES(extern, bfloat16, Cpu)
MOE_MAMBA_TEST_FLOAT_PASSES(extern, float, Cpu)
MOE_MAMBA_TEST_DOUBLE_PASSES(extern, double, Cpu)
}  // namespace moe_mamba
#endif
