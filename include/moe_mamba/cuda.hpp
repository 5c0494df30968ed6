#pragma once

/// Models on a CUDA device, for any C++20 compiler: definitions, models, training, generation and files, but no kernels. These
/// are in cuda.cuh, which nvcc compiles in one file of the program:
///
///   #include <moe_mamba/cuda.cuh>
///   template struct moe_mamba::PassesOf<Net, float, moe_mamba::Cuda>;
///
/// Without it, the linker reports that PassesOf<Net, float, cuda::Device>::get() is undefined.

#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/cuda/recording.hpp"
#include "moe_mamba/files.hpp"
#include "moe_mamba/training.hpp"
