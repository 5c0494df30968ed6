#pragma once

/// Everything a host compiler can take: definitions, models on the CPU with their kernels, training, generation and files.
/// For less, include what of these is used; the operations alone are cpu/*.hpp.

#include "moe_mamba/files.hpp"
#include "moe_mamba/inference.hpp"
#include "moe_mamba/io/safetensors_reader.hpp"
#include "moe_mamba/kernels.hpp"
#include "moe_mamba/training.hpp"
