#pragma once

#include "moe_mamba/core/standard.hpp"

/// MOE_MAMBA_HOST_DEVICE marks scalar mathematics that host and device code share.
#if defined(__CUDACC__)
#define MOE_MAMBA_HOST_DEVICE __host__ __device__
#else
#define MOE_MAMBA_HOST_DEVICE
#endif
