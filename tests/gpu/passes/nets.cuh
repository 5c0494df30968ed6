#pragma once

#include "model/nets.hpp"
#include "moe_mamba/cuda.cuh"

/// The kernels of the tests' models on a device, with parameters stored as S: TEST_PASSES(S) in one file for each S, which
/// are compiled side by side.
#define TEST_PASSES(S)                                            \
  template struct PassesOf<test::MambaNet, S, cuda::Device>;      \
  template struct PassesOf<test::MixtureNet, S, cuda::Device>;    \
  template struct PassesOf<test::ManyWaysNet, S, cuda::Device>;   \
  template struct PassesOf<test::FamilyWaysNet, S, cuda::Device>; \
  template struct PassesOf<test::CapacityNet, S, cuda::Device>;   \
  template struct PassesOf<test::SeriesNet, S, cuda::Device>;     \
  template struct PassesOf<test::AttentionNet, S, cuda::Device>;  \
  template struct PassesOf<test::PlainMixture, S, cuda::Device>;  \
  template struct PassesOf<test::OneWide, S, cuda::Device>;       \
  template struct PassesOf<test::ManyStates, S, cuda::Device>;    \
  template struct PassesOf<test::AllExperts, S, cuda::Device>;    \
  template struct PassesOf<test::ManyInputs, S, cuda::Device>;    \
  template struct PassesOf<test::TrainedNet, S, cuda::Device>;    \
  template struct PassesOf<test::OddNet, S, cuda::Device>;        \
  template struct PassesOf<test::UnbalancedNet, S, cuda::Device>; \
  template struct PassesOf<test::FilterNet, S, cuda::Device>;     \
  template struct PassesOf<test::WritingNet, S, cuda::Device>;
