// The kernels of the paper's models of 25 million active parameters on a CUDA device.
#include "device_systems.hpp"
#include "moe_mamba/cuda.cuh"

template struct moe_mamba::PassesOf<paper::FullPlain, moe_mamba::bfloat16, moe_mamba::Cuda>;
template struct moe_mamba::PassesOf<paper::FullMixture, moe_mamba::bfloat16, moe_mamba::Cuda>;
