// The kernels of the systems of width 64 on a CUDA device.
#include "device_systems.hpp"
#include "moe_mamba/cuda.cuh"

template struct moe_mamba::PassesOf<paper::Plain<paper::Width64>, moe_mamba::bfloat16, moe_mamba::Cuda>;
template struct moe_mamba::PassesOf<paper::Mixture<paper::Width64>, moe_mamba::bfloat16, moe_mamba::Cuda>;
