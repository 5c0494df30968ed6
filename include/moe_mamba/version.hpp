#pragma once

#include "moe_mamba/core/standard.hpp"

/// The version of the library. CMake reads it from these lines.
#define MOE_MAMBA_VERSION_MAJOR 0
#define MOE_MAMBA_VERSION_MINOR 2
#define MOE_MAMBA_VERSION_PATCH 0
