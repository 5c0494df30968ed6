#pragma once

// What a definition and its cost need: the library without operations, which compiles in half a second.
#include "moe_mamba/language/attention.hpp"
#include "moe_mamba/language/language_model.hpp"
#include "moe_mamba/language/mamba.hpp"
#include "moe_mamba/language/mlp.hpp"
#include "moe_mamba/language/moe.hpp"
#include "moe_mamba/language/norm.hpp"
#include "moe_mamba/language/parallel.hpp"
#include "moe_mamba/language/sequence_model.hpp"
#include "moe_mamba/model/cost.hpp"
