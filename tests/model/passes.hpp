#pragma once

#include "model/nets.hpp"
#include "moe_mamba/model/passes.hpp"

/// The passes of the tests' models, with parameters stored as S, on a backend: declared for the Cpu here, so that the many
/// tests of these models share those that tests/passes compiles, and on a device compiled by tests/gpu/passes.
#define MODEL_PASSES(declared, S, Backend)                            \
  declared template struct PassesOf<test::MambaNet, S, Backend>;      \
  declared template struct PassesOf<test::MixtureNet, S, Backend>;    \
  declared template struct PassesOf<test::ManyWaysNet, S, Backend>;   \
  declared template struct PassesOf<test::FamilyWaysNet, S, Backend>; \
  declared template struct PassesOf<test::CapacityNet, S, Backend>;   \
  declared template struct PassesOf<test::SeriesNet, S, Backend>;     \
  declared template struct PassesOf<test::AttentionNet, S, Backend>;  \
  declared template struct PassesOf<test::PlainMixture, S, Backend>;  \
  declared template struct PassesOf<test::OneWide, S, Backend>;       \
  declared template struct PassesOf<test::ManyStates, S, Backend>;    \
  declared template struct PassesOf<test::AllExperts, S, Backend>;    \
  declared template struct PassesOf<test::ManyInputs, S, Backend>;    \
  declared template struct PassesOf<test::TrainedNet, S, Backend>;    \
  declared template struct PassesOf<test::OddNet, S, Backend>;        \
  declared template struct PassesOf<test::UnbalancedNet, S, Backend>; \
  declared template struct PassesOf<test::FilterNet, S, Backend>;     \
  declared template struct PassesOf<test::WritingNet, S, Backend>;

#if !defined(MOE_MAMBA_TEST_CUDA) && !defined(__CUDACC__)
namespace moe_mamba {
MODEL_PASSES(extern, float, Cpu)
MODEL_PASSES(extern, double, Cpu)
MODEL_PASSES(extern, bfloat16, Cpu)
}  // namespace moe_mamba
#endif
