#include "gpu/models/nets.hpp"
#include "moe_mamba/cuda.cuh"

template struct moe_mamba::PassesOf<benchmarks::MoeMamba25M, float, moe_mamba::Cuda>;
