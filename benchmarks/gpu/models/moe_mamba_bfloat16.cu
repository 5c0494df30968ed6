#include "gpu/models/nets.hpp"
#include "moe_mamba/cuda.cuh"

template struct moe_mamba::PassesOf<benchmarks::MoeMamba25M, moe_mamba::bfloat16, moe_mamba::Cuda>;
