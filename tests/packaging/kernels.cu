// The one file that nvcc compiles.
#include <moe_mamba/cuda.cuh>

#include "definition.hpp"

template struct moe_mamba::PassesOf<Net, float, moe_mamba::Cuda>;
