#include "model/passes.hpp"
#include "moe_mamba/moe_mamba.hpp"

namespace moe_mamba {
FLOAT_PASSES(, float, Cpu)
}
