#include "families/passes.hpp"

namespace moe_mamba {
FAMILY_PASSES(, float)
OTHER_FAMILY_PASSES()
}  // namespace moe_mamba
