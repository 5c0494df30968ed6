#include "model/passes.hpp"
#include "moe_mamba/moe_mamba.hpp"

namespace moe_mamba {
MOE_MAMBA_TEST_BFLOAT16_PASSES(, bfloat16, Cpu)
}
