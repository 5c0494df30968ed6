#pragma once

// All that a definition and its cost need, which is the library without operations and so compiles in half a second.
#include "moe_mamba/layers/attention.hpp"
#include "moe_mamba/layers/mamba.hpp"
#include "moe_mamba/layers/mlp.hpp"
#include "moe_mamba/layers/moe.hpp"
#include "moe_mamba/layers/norm.hpp"
#include "moe_mamba/layers/parallel.hpp"
#include "moe_mamba/model/cost.hpp"
#include "moe_mamba/model/language_model.hpp"
#include "moe_mamba/model/sequence_model.hpp"
