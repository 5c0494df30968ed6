#include "families/passes.hpp"

namespace moe_mamba {
FAMILY_PASSES(, double)
}
