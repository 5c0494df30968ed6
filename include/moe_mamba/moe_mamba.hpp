#pragma once

/// Everything for a host compiler: definitions, models on the CPU with their kernels, training, generation and files. Programs
/// that use less of it may include only the headers that they need; single operations are in cpu/*.hpp.

#include "moe_mamba/files.hpp"
#include "moe_mamba/inference.hpp"
#include "moe_mamba/kernels.hpp"
#include "moe_mamba/training.hpp"
