// The kernels of the quickstart's models on a CUDA device, for --cuda.
#include "moe_mamba/cuda.cuh"
#include "nets.hpp"

template struct moe_mamba::PassesOf<quickstart::Net, float, moe_mamba::Cuda>;
template struct moe_mamba::PassesOf<quickstart::SmallNet, float, moe_mamba::Cuda>;
template struct moe_mamba::PassesOf<quickstart::SmallPlain, float, moe_mamba::Cuda>;
