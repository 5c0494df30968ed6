#pragma once

/// Models on a CUDA device, as any C++20 compiler takes them: definitions, models, training, generation and files, but no
/// kernels. Those come from cuda.cuh, which nvcc has to compile, in one file of the program:
///
///   #include <moe_mamba/cuda.cuh>
///   template struct moe_mamba::PassesOf<Net, float, moe_mamba::Cuda>;
///
/// Without that line the linker misses PassesOf<Net, float, cuda::Device>::get().

#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/cuda/recording.hpp"
#include "moe_mamba/files.hpp"
#include "moe_mamba/io/safetensors_reader.hpp"
#include "moe_mamba/training.hpp"
