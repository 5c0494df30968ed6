#include "model/passes.hpp"
#include "moe_mamba/moe_mamba.hpp"

namespace moe_mamba {
BFLOAT16_PASSES(, bfloat16, Cpu)
}
