#include "model/passes.hpp"
#include "moe_mamba/cuda.cuh"

namespace moe_mamba {
DOUBLE_PASSES(, double, cuda::Device)
}
