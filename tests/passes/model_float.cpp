#include "model/passes.hpp"
#include "passes/cpu.hpp"

namespace moe_mamba {
MOE_MAMBA_TEST_FLOAT_PASSES(, float, Cpu)
}
