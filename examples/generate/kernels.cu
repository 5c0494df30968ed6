// The kernels of the models on a CUDA device, for --cuda.
#include "models.hpp"
#include "moe_mamba/cuda.cuh"

template struct moe_mamba::PassesOf<generate::Mamba130M, moe_mamba::bfloat16, moe_mamba::Cuda>;
template struct moe_mamba::PassesOf<generate::Mamba370M, moe_mamba::bfloat16, moe_mamba::Cuda>;
template struct moe_mamba::PassesOf<generate::Mamba790M, moe_mamba::bfloat16, moe_mamba::Cuda>;
template struct moe_mamba::PassesOf<generate::Mamba1400M, moe_mamba::bfloat16, moe_mamba::Cuda>;
template struct moe_mamba::PassesOf<generate::Mamba2800M, moe_mamba::bfloat16, moe_mamba::Cuda>;
template struct moe_mamba::PassesOf<generate::Tiny, moe_mamba::bfloat16, moe_mamba::Cuda>;
