#include "model/passes.hpp"
#include "moe_mamba/moe_mamba.hpp"

namespace moe_mamba {
DOUBLE_PASSES(, double, Cpu)
}
