#include "model/passes.hpp"
#include "moe_mamba/kernels.hpp"

namespace moe_mamba {
MOE_MAMBA_TEST_FLOAT_PASSES(, float, Cpu)
}
