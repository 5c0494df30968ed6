#include "model/passes.hpp"
#include "moe_mamba/cuda.cuh"

namespace moe_mamba {
BFLOAT16_PASSES(, bfloat16, cuda::Device)
}
