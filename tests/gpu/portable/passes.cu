// Every operation in one file, compiled for other devices than the tests run on.
#include "model/nets.hpp"
#include "moe_mamba/cuda.cuh"

template struct moe_mamba::PassesOf<test::MixtureNet, float, moe_mamba::Cuda>;
template struct moe_mamba::PassesOf<test::MixtureNet, moe_mamba::bfloat16, moe_mamba::Cuda>;
template struct moe_mamba::PassesOf<test::ManyWaysNet, float, moe_mamba::Cuda>;
template struct moe_mamba::PassesOf<test::ManyWaysNet, moe_mamba::bfloat16, moe_mamba::Cuda>;
