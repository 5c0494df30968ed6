#pragma once

#include "model/passes.hpp"
#include "moe_mamba/cuda.cuh"

/// The kernels of the tests' models on a device, with parameters stored as S: TEST_PASSES(S) in one file for each S, which
/// are compiled side by side.
#define TEST_PASSES(S) MODEL_PASSES(, S, cuda::Device)
