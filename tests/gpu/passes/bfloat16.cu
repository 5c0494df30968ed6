#include "gpu/passes/nets.cuh"

namespace moe_mamba {
TEST_PASSES(bfloat16)
}
