#include "model/passes.hpp"
#include "moe_mamba/cuda.cuh"

namespace moe_mamba {
MOE_MAMBA_TEST_BFLOAT16_PASSES(, bfloat16, cuda::Device)
}
