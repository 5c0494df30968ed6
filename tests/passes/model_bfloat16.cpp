#include "model/passes.hpp"
#include "moe_mamba/moe_mamba.hpp"

namespace moe_mamba {
MODEL_PASSES(, bfloat16, Cpu)
}
