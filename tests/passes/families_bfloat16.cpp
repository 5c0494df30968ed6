#include "families/passes.hpp"
#include "passes/cpu.hpp"

namespace moe_mamba {
MOE_MAMBA_TEST_FAMILY_PASSES(, bfloat16)
}
