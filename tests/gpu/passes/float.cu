#include "model/passes.hpp"
#include "moe_mamba/cuda.cuh"

namespace moe_mamba {
FLOAT_PASSES(, float, cuda::Device)
}
